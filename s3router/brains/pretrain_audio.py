"""Pre-training's audio: degraded, and through the front end once.

Each pass over the pool writes one file, whole or not at all, and is skipped
where the file is there.
"""

import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm import tqdm

from s3router.brains.pretrain_checks import check_frames, check_record
from s3router.data.degrade import (
    SPEEDS,
    degrade,
    sped_up_lengths,
    speed_up,
)
from s3router.data.ragged import Ragged, write_ragged
from s3router.errors import DataError
from s3router.formats.files import write_json
from s3router.formats.fingerprint import fingerprint
from s3router.models.frame_grid import RATE, FrameGrid
from s3router.models.units import log_mel

#: Share of the crops of the mel warm-up that are degraded.
MEL_DEGRADED = 0.5

#: Clips are cut to multiples of so many samples (0.1 s): CPU kernels are
#: compiled per length, which took six times as long as running them.
STEP = 1600


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


def clip_speed(index: int, seed: int) -> float:
    """Return how much faster one item's degraded copy is."""
    generator = np.random.default_rng([seed, index, 1])
    return float(generator.choice(SPEEDS))


class FasterCopies:
    """Which frames of each clip its degraded copy shows.

    Arguments
    ---------
    grid : FrameGrid
        Of the encoder.
    seed : int
        As of `degraded_item`.
    """

    def __init__(self, grid: FrameGrid, seed: int) -> None:
        self.grid = grid
        self.seed = seed

    def __call__(self, clip: int, count: int, limit: int) -> np.ndarray:
        """Return (count,) frames of the clean clip, which has `limit`."""
        speed = clip_speed(clip, self.seed)
        return self.grid.sped_up(count, speed, limit)


def degraded_item(audio: Ragged, index: int, seed: int) -> np.ndarray:
    """Return one item's faster, degraded samples, normalised again."""
    generator = np.random.default_rng([seed, index])
    clean = speed_up(as_float(audio[index]), clip_speed(index, seed))
    other = audio[int(generator.integers(len(audio)))]
    return as_float(degrade(clean, as_float(other), generator))


class MelCrops(Dataset):
    """Batches of crops, some of them degraded, with their log mel bands.

    The bands are those of what is heard: a front end that should clean at
    once keeps less of it (see `s3router.models.filterbank`).

    Item i depends on seed, epoch and i alone.

    Arguments
    ---------
    audio : Ragged
        Decoded samples.
    probabilities : numpy.ndarray
        (items,) how likely each is drawn.
    batches : int
        In an epoch.
    grid : FrameGrid
        Of the encoder.
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
        grid: FrameGrid,
        clips: int = 8,
        seconds: float = 3.0,
        bins: int = 80,
        seed: int = 0,
    ) -> None:
        self.audio = audio
        self.probabilities = probabilities / probabilities.sum()
        self.batches = batches
        self.clips = clips
        self.grid = grid
        self.samples = max(grid.window, int(seconds * RATE))
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
        heard = [
            as_float(degrade(one, other, generator))
            if generator.random() < MEL_DEGRADED
            else one
            for one, other in pairwise(clean)
        ]
        whole = torch.from_numpy(np.stack(heard))
        bands = log_mel(whole, self.bins, self.grid)
        deviation, mean = torch.std_mean(bands, dim=1, keepdim=True)
        return whole, (bands - mean) / (deviation + 0.1)

    def _crop(self, clip: int, generator: np.random.Generator) -> np.ndarray:
        samples = self.audio[clip]
        first = int(generator.integers(max(1, samples.size - self.samples)))
        part = samples[first : first + self.samples]
        return as_float(np.resize(part, self.samples))


def cached_samples(
    lengths: np.ndarray, grid: FrameGrid, seed: int | None
) -> np.ndarray:
    """Return how many samples of each clip go through the front end.

    Arguments
    ---------
    lengths : numpy.ndarray
        (items,) samples of the clips.
    grid : FrameGrid
        Of the encoder.
    seed : int or None
        Of the degraded copies; None: the clean clips.

    Returns
    -------
    numpy.ndarray
        (items,) int64: multiples of 0.1 s, but for clips shorter than that.
    """
    if seed is not None:
        speeds = [clip_speed(index, seed) for index in range(len(lengths))]
        lengths = sped_up_lengths(lengths, np.array(speeds))
    return np.maximum(grid.window, lengths // STEP * STEP)


def front_end_record(
    front_end: nn.Module, grid: FrameGrid, seed: int | None
) -> dict:
    """Return what a cache of features depends on, for the JSON beside it.

    Arguments
    ---------
    front_end : torch.nn.Module
        As it is now.
    grid : FrameGrid
        Of the encoder.
    seed : int or None
        Of the degraded copies; None: the clean clips.

    Returns
    -------
    dict
        Plain values.
    """
    weights = {
        name: tensor.detach().float().cpu().numpy()
        for name, tensor in front_end.state_dict().items()
    }
    return {
        "format_version": 1,
        "window": grid.window,
        "hop": grid.hop,
        "front_end": fingerprint(weights),
        "seed": seed,
    }


def cache_features(
    front_end: nn.Module,
    audio: Ragged,
    path: Path,
    grid: FrameGrid,
    seed: int | None,
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
    grid : FrameGrid
        Of the encoder.
    seed : int or None
        Degrade the clips with this seed; None: clean.

    Returns
    -------
    Ragged
        (frames, channels) per clip.

    Raises
    ------
    MismatchError
        If the file is there, of another front end or other clips.
    """
    device = next(front_end.parameters()).device
    samples = cached_samples(audio.lengths, grid, seed)
    record = path.with_name(path.name + ".json")
    made_with = front_end_record(front_end, grid, seed)

    def features() -> Iterator[np.ndarray]:
        name = "clean" if seed is None else f"degraded {seed}"
        for index in tqdm(range(len(audio)), desc=f"features, {name}"):
            if seed is None:
                wave = as_float(audio[index])
            else:
                wave = degraded_item(audio, index, seed)
            size = int(samples[index])
            wave = np.pad(wave, (0, max(0, size - wave.size)))[:size]
            out = front_end(torch.from_numpy(wave)[None].to(device))
            yield out[0].T.half().cpu().numpy()

    if not Ragged.exists(path):
        # First what it will be made with, then the features: killed in
        # between, both are written again.
        write_json(record, made_with)
        with torch.no_grad():
            write_ragged(path, features(), "float16")
    remove = f"{path.parent}/features_*, units_* and iteration_*"
    check_record(record, made_with, remove)
    cached = Ragged(path, "float16")
    frames = [grid.frames(int(size)) for size in samples]
    check_frames(path, cached.lengths, frames, remove)
    return cached
