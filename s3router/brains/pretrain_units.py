"""Pre-training's targets: k-means units of MFCCs or of a layer.

A pass over the pool writes one file, whole or not at all, and is skipped where
the file is there. The computations are those of `s3router.models.units`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from s3router.brains.pretrain_audio import as_float
from s3router.data.ragged import Ragged, write_ragged
from s3router.formats.files import write_json
from s3router.models.frame_grid import FrameGrid
from s3router.models.phone_directions import PhoneDirections
from s3router.models.units import (
    assign_units,
    fit_units,
    mfcc,
    unit_statistics,
)

#: Clips are padded to a multiple of so many frames where a layer is computed.
LENGTH_STEP = 16
#: So many frames go through the network at once, if clips are shorter.
BATCH_FRAMES = 1024
#: Clips that are asked for at once, to be put together by length.
CLIPS = 128


class FramesOf:
    """Index of an item to its frames, as `make_units` wants them."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __call__(self, index: int) -> np.ndarray:
        """Return (frames, width) float32."""
        raise NotImplementedError

    def many(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Return those of several items, in their order."""
        return [self(index) for index in indices]

    def in_order(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield those of many items, a few of which are held at a time."""
        for start in range(0, len(indices), CLIPS):
            yield from self.many(
                [int(i) for i in indices[start : start + CLIPS]]
            )


def make_units(
    frames_of: FramesOf,
    path: Path,
    count: int,
    fit_frames: int,
    seed: int,
    made_with: Mapping[str, object] | None = None,
) -> Ragged:
    """Fit k-means on a draw of the pool and label all of it.

    Arguments
    ---------
    frames_of : FramesOf
        Index of an item to its (frames, width) float32.
    path : pathlib.Path
        Gets uint16 units; `<path>.json` their statistics.
    count : int
        Number of units.
    fit_frames : int
        Frames that k-means sees, at most.
    seed : int
        Of the draw and of k-means.
    made_with : mapping
        Settings to note beside the statistics.

    Returns
    -------
    Ragged
        (frames,) per clip.
    """
    if units_exist(path):
        return Ragged(path, "uint16")
    generator = np.random.default_rng(seed)
    total = len(frames_of)
    share: list[np.ndarray] = []
    left = fit_frames
    for frames in frames_of.in_order(generator.permutation(total)):
        share.append(frames[:left])
        left -= len(frames)
        if left <= 0:
            break
    centres = fit_units(np.concatenate(share), count, seed)
    counts = np.zeros(count, dtype=np.int64)

    def units() -> Iterator[np.ndarray]:
        for frames in tqdm(
            frames_of.in_order(range(total)), f"{count} units", total
        ):
            assigned = assign_units(frames, centres)
            np.add(counts, np.bincount(assigned, minlength=count), out=counts)
            yield assigned

    return write_units(
        path, units(), lambda: {**unit_statistics(counts), **(made_with or {})}
    )


def write_units(
    path: Path,
    rows: Iterator[np.ndarray],
    record: Callable[[], Mapping[str, object]],
) -> Ragged:
    """Write units, then what is known of them, which says that all is there.

    Arguments
    ---------
    path : pathlib.Path
        Gets the units; `<path>.json` their record.
    rows : iterator of numpy.ndarray
        (frames,) of each clip.
    record : callable
        Returns the record; called when all rows are written.

    Returns
    -------
    Ragged
        (frames,) uint16 per clip.
    """
    write_ragged(path, rows, "uint16")
    write_json(units_record(path), record())
    return Ragged(path, "uint16")


def units_record(path: Path) -> Path:
    """Return where the statistics of a file of units are."""
    return path.with_name(path.name + ".json")


def units_exist(path: Path) -> bool:
    """Tell whether units and their statistics, written last, are there."""
    return Ragged.exists(path) and units_record(path).is_file()


class MFCCFrames(FramesOf):
    """MFCCs with the mean and deviation of their speaker removed.

    Arguments
    ---------
    audio : Ragged
        Decoded samples.
    speakers : sequence of str
        Speaker of each item.
    grid : FrameGrid
        Of the encoder.
    """

    def __init__(
        self, audio: Ragged, speakers: Sequence[str], grid: FrameGrid
    ) -> None:
        self.frames: list[np.ndarray] = []
        sums: dict[str, np.ndarray] = {}
        for index in tqdm(range(len(audio)), desc="MFCC"):
            wave = torch.from_numpy(as_float(audio[index]))
            frames = mfcc(wave, grid=grid).numpy()
            self.frames.append(frames.astype(np.float16))
            entry = np.stack(
                [
                    frames.sum(0, dtype=np.float64),
                    np.square(frames).sum(0, dtype=np.float64),
                    np.full(frames.shape[1], len(frames), dtype=np.float64),
                ]
            )
            speaker = speakers[index]
            sums[speaker] = sums.get(speaker, 0.0) + entry
        self.speakers = speakers
        self.normal = {name: _mean_scale(entry) for name, entry in sums.items()}

    def __len__(self) -> int:
        return len(self.frames)

    def __call__(self, index: int) -> np.ndarray:
        """Return (frames, 39 * spectra per frame) float32."""
        mean, deviation = self.normal[self.speakers[index]]
        return (self.frames[index].astype(np.float32) - mean) / deviation


def _mean_scale(entry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total, squares, count = entry
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 1e-6))
    return mean.astype(np.float32), deviation.astype(np.float32)


class LayerFrames(FramesOf):
    """Output of one layer on clean features, computed when asked for.

    Arguments
    ---------
    model : torch.nn.Module
        A `UnitPredictor`.
    features : Ragged
        Of the frozen front end.
    layer : int
        0 is the transformer's input, n the output of block n. Blocks above
        are not run.
    precision : torch.dtype
        Of the products.
    directions : PhoneDirections or None
        Projection of what comes out; None: as it is.
    """

    def __init__(
        self,
        model: nn.Module,
        features: Ragged,
        layer: int,
        precision: torch.dtype = torch.float32,
        directions: PhoneDirections | None = None,
    ) -> None:
        self.model = model.eval()
        self.features = features
        self.layer = layer
        self.precision = precision
        self.directions = directions

    def __len__(self) -> int:
        return len(self.features)

    def layers(self, clip: np.ndarray) -> list[np.ndarray]:
        """Return layers 0 to `layer` of a clip.

        Arguments
        ---------
        clip : numpy.ndarray
            (frames, channels) features.

        Returns
        -------
        list of numpy.ndarray
            (frames, width) float32 each.
        """
        return [layer[0] for layer in self._layers([clip])]

    @torch.no_grad()
    def _layers(self, clips: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Return, for layers 0 to `layer`, that of each clip of a batch."""
        device = next(self.model.parameters()).device
        lengths = [len(clip) for clip in clips]
        # Few lengths: CPU kernels are compiled for each.
        width = max(lengths) + -max(lengths) % LENGTH_STEP
        padded = np.zeros((len(clips), width, clips[0].shape[1]), np.float32)
        for row, clip in zip(padded, clips, strict=True):
            row[: len(clip)] = clip
        with torch.autocast(
            device.type,
            self.precision,
            enabled=self.precision != torch.float32,
        ):
            states = self.model.layers(
                torch.from_numpy(padded).to(device),
                torch.tensor(lengths),
                self.layer,
            )
        return [
            [row[:n].numpy() for row, n in zip(layer, lengths, strict=True)]
            for layer in (state.float().cpu() for state in states)
        ]

    def __call__(self, index: int) -> np.ndarray:
        """Return (frames, width) float32."""
        return self._directed(self.layers(self.features[index])[-1])

    def many(self, indices: Sequence[int]) -> list[np.ndarray]:
        """Return those of several items, computed together by length."""
        found: dict[int, np.ndarray] = {}
        for batch in self._batches(indices):
            layers = self._layers([self.features[i] for i in batch])
            found.update(zip(batch, layers[-1], strict=True))
        return [self._directed(found[index]) for index in indices]

    def _batches(self, indices: Sequence[int]) -> Iterator[list[int]]:
        """Yield the items by rising length, as many as go together."""
        lengths, batch = self.features.lengths, []
        for index in sorted(indices, key=lambda i: lengths[i]):
            if batch and (len(batch) + 1) * lengths[index] > BATCH_FRAMES:
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def _directed(self, frames: np.ndarray) -> np.ndarray:
        return frames if self.directions is None else self.directions(frames)
