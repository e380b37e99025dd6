"""The slow passes over the pool between the stages of pre-training.

Each writes one file, whole or not at all, and is skipped where the file is
there: decoded samples, features of the frozen front end, units.
"""

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from s3router.data.audio import read_audio
from s3router.data.degrade import degrade
from s3router.data.manifest import Utterance
from s3router.data.ragged import Ragged, write_ragged
from s3router.errors import DataError
from s3router.formats.files import read_json, write_json
from s3router.models.units import (
    RATE,
    WINDOW,
    assign_units,
    fit_units,
    log_mel,
    mfcc,
    unit_statistics,
)

#: Clips are cut to multiples of so many samples (0.1 s): CPU kernels are
#: compiled per length, which took six times as long as running them.
STEP = 1600


def decode_pool(
    rows: Sequence[Utterance], path: Path, longest_seconds: float = 30.0
) -> tuple[Ragged, list[dict]]:
    """Decode a pool once; cut long clips into equal parts.

    Arguments
    ---------
    rows : sequence of Utterance
        The pool.
    path : pathlib.Path
        Gets int16 samples at 16 kHz; `<path>.items.json` says whose they are.
    longest_seconds : float
        Longest part.

    Returns
    -------
    Ragged
        The samples.
    list of dict
        `language`, `speaker` and `id` of each item.
    """
    described = path.with_name(path.name + ".items.json")
    items: list[dict] = []

    def parts() -> Iterator[np.ndarray]:
        for row in tqdm(rows, desc="decode", unit="clip"):
            samples = read_audio(row["wav"], RATE).numpy()
            peak = max(1.0, float(np.abs(samples).max(initial=0.0)))
            whole = np.round(samples / peak * 32767).astype(np.int16)
            count = int(np.ceil(whole.size / (longest_seconds * RATE)))
            for part in np.array_split(whole, max(1, count)):
                if part.size < WINDOW or not part.any():
                    continue
                items.append(
                    {
                        "id": row["ID"],
                        "language": row["language"],
                        "speaker": row["spk_id"],
                    }
                )
                yield part

    if not (Ragged.exists(path) and described.is_file()):
        write_ragged(path, parts(), "int16")
        write_json(described, {"format_version": 1, "items": items})
    return Ragged(path, "int16"), read_json(described)["items"]


def held_out(items: Sequence[dict], share: float) -> np.ndarray:
    """Return which items validate, by a hash of their clip's ID.

    Arguments
    ---------
    items : sequence of dict
        As of `decode_pool`.
    share : float
        About how many.

    Returns
    -------
    numpy.ndarray
        (items,) bool; one or more True and one or more False.

    Raises
    ------
    DataError
        If there are fewer than two clips.
    """
    hashes = np.array(
        [zlib.crc32(item["id"].encode()) % 100003 for item in items]
    )
    if len(set(hashes)) < 2:
        raise DataError("pre-training needs two clips or more")
    low = np.unique(hashes)[max(0, round(share * len(set(hashes))) - 1)]
    return hashes <= min(low, np.unique(hashes)[-2])


def as_float(samples: np.ndarray) -> np.ndarray:
    """Return int16 samples with zero mean and unit variance, float32."""
    wave = samples.astype(np.float32)
    wave -= wave.mean()
    return wave / np.sqrt(wave.var() + 1e-5)


def degraded_item(audio: Ragged, index: int, seed: int) -> np.ndarray:
    """Return one item's degraded samples, normalised again."""
    generator = np.random.default_rng([seed, index])
    other = audio[int(generator.integers(len(audio)))]
    return as_float(degrade(as_float(audio[index]), as_float(other), generator))


class MelCrops(Dataset):
    """Batches of degraded crops with log mel bands of the clean ones.

    Item i depends on seed, epoch and i alone.

    Arguments
    ---------
    audio : Ragged
        Decoded samples.
    probabilities : numpy.ndarray
        (items,) how likely each is drawn.
    batches : int
        In an epoch.
    clips, seconds : int, float
        Crops of a batch, and their length; shorter clips are repeated.
    bins : int
        Mel bands.
    seed : int
        Of everything that is drawn.
    """

    def __init__(
        self,
        audio: Ragged,
        probabilities: np.ndarray,
        batches: int,
        clips: int = 8,
        seconds: float = 3.0,
        bins: int = 80,
        seed: int = 0,
    ) -> None:
        self.audio = audio
        self.probabilities = probabilities / probabilities.sum()
        self.batches = batches
        self.clips = clips
        self.samples = max(WINDOW, int(seconds * RATE))
        self.bins = bins
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, which decides what is drawn."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if not 0 <= index < self.batches:
            raise IndexError(index)
        generator = np.random.default_rng([self.seed, self.epoch, index])
        drawn = generator.choice(
            len(self.audio), self.clips + 1, p=self.probabilities
        )
        clean = [self._crop(clip, generator) for clip in drawn]
        noisy = [
            as_float(degrade(clean[i], clean[i + 1], generator))
            for i in range(self.clips)
        ]
        bands = log_mel(torch.from_numpy(np.stack(clean[:-1])), self.bins)
        deviation, mean = torch.std_mean(bands, dim=1, keepdim=True)
        return (
            torch.from_numpy(np.stack(noisy)),
            (bands - mean) / (deviation + 0.1),
        )

    def _crop(self, clip: int, generator: np.random.Generator) -> np.ndarray:
        samples = self.audio[clip]
        first = int(generator.integers(max(1, samples.size - self.samples)))
        part = samples[first : first + self.samples]
        return as_float(np.resize(part, self.samples))


def cache_features(
    front_end: nn.Module, audio: Ragged, path: Path, seed: int | None
) -> Ragged:
    """Run the frozen front end once over all clips, one at a time.

    Arguments
    ---------
    front_end : torch.nn.Module
        (1, samples) to (1, channels, frames).
    audio : Ragged
        Decoded samples.
    path : pathlib.Path
        Gets float16 features.
    seed : int or None
        Degrade the clips with this seed; None: clean.

    Returns
    -------
    Ragged
        (frames, channels) per clip.
    """
    device = next(front_end.parameters()).device

    def features() -> Iterator[np.ndarray]:
        name = "clean" if seed is None else f"degraded {seed}"
        for index in tqdm(range(len(audio)), desc=f"features, {name}"):
            if seed is None:
                wave = as_float(audio[index])
            else:
                wave = degraded_item(audio, index, seed)
            wave = wave[: max(WINDOW, wave.size // STEP * STEP)]
            out = front_end(torch.from_numpy(wave)[None].to(device))
            yield out[0].T.half().cpu().numpy()

    if not Ragged.exists(path):
        with torch.no_grad():
            write_ragged(path, features(), "float16")
    return Ragged(path, "float16")


def make_units(
    frames_of: "FramesOf",
    path: Path,
    count: int,
    fit_frames: int,
    seed: int,
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

    Returns
    -------
    Ragged
        (frames,) per clip.
    """
    if Ragged.exists(path):
        return Ragged(path, "uint16")
    generator = np.random.default_rng(seed)
    total = len(frames_of)
    share: list[np.ndarray] = []
    left = fit_frames
    for index in generator.permutation(total):
        frames = frames_of(int(index))
        share.append(frames[:left])
        left -= len(frames)
        if left <= 0:
            break
    centres = fit_units(np.concatenate(share), count, seed)
    counts = np.zeros(count, dtype=np.int64)

    def units() -> Iterator[np.ndarray]:
        for index in tqdm(range(total), desc=f"{count} units"):
            assigned = assign_units(frames_of(index), centres)
            np.add(counts, np.bincount(assigned, minlength=count), out=counts)
            yield assigned

    write_ragged(path, units(), "uint16")
    statistics = unit_statistics(counts)
    write_json(path.with_name(path.name + ".json"), statistics)
    return Ragged(path, "uint16")


class FramesOf:
    """Index of an item to its frames, as `make_units` wants them."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __call__(self, index: int) -> np.ndarray:
        """Return (frames, width) float32."""
        raise NotImplementedError


class MFCCFrames(FramesOf):
    """MFCCs with the mean and deviation of their speaker removed.

    Arguments
    ---------
    audio : Ragged
        Decoded samples.
    speakers : sequence of str
        Speaker of each item.
    """

    def __init__(self, audio: Ragged, speakers: Sequence[str]) -> None:
        self.frames: list[np.ndarray] = []
        sums: dict[str, np.ndarray] = {}
        for index in tqdm(range(len(audio)), desc="MFCC"):
            wave = torch.from_numpy(as_float(audio[index]))
            frames = mfcc(wave).numpy()
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
        """Return (frames, 39) float32."""
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
        0 is the transformer's input, n the output of block n.
    precision : torch.dtype
        Of the products.
    """

    def __init__(
        self,
        model: nn.Module,
        features: Ragged,
        layer: int,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.model = model.eval()
        self.features = features
        self.layer = layer
        self.precision = precision

    def __len__(self) -> int:
        return len(self.features)

    @torch.no_grad()
    def layers(self, index: int) -> tuple[torch.Tensor, ...]:
        """Return all layers of an item, (1, frames, width) each."""
        device = next(self.model.parameters()).device
        clip = np.asarray(self.features[index], dtype=np.float32)
        frames = torch.tensor([len(clip)], device=device)
        with torch.autocast(
            device.type,
            self.precision,
            enabled=self.precision != torch.float32,
        ):
            return self.model(
                torch.from_numpy(clip)[None].to(device), frames, layers=True
            )

    def __call__(self, index: int) -> np.ndarray:
        """Return (frames, width) float32."""
        return self.layers(index)[self.layer][0].float().cpu().numpy()
