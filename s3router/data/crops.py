"""Batches of random crops for pre-training, a function of seed and number.

Item i of the data set is batch i of the epoch. It depends on seed, epoch and i
alone, so that a run that was killed goes on with the very batch that came
next. Languages are drawn by (n_l / N) ** alpha (Conneau et al., 2020, XLSR).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from s3router.data.ragged import Ragged

#: Crops have multiples of so many frames: CPU kernels are compiled per length,
#: and crops of one length need no padding.
ROUND = 16


class CropBatch(NamedTuple):
    """Crops of front-end features, what is hidden of them, and their units.

    `features` (batch, frames, channels) float32, `frames` (batch,) int64,
    `hidden` (batch, frames) bool, `units` (batch, frames) int64 with -100 in
    the padding.
    """

    features: torch.Tensor
    frames: torch.Tensor
    hidden: torch.Tensor
    units: torch.Tensor

    def to(self, *args: object, **kwargs: object) -> "CropBatch":
        """Return the batch on another device."""
        return CropBatch(*(tensor.to(*args, **kwargs) for tensor in self))


def clip_probabilities(
    lengths: np.ndarray, languages: Sequence[str], alpha: float
) -> np.ndarray:
    """Return how likely each clip is drawn.

    Arguments
    ---------
    lengths : numpy.ndarray
        (clips,) length of each.
    languages : sequence of str
        Language of each.
    alpha : float
        1 draws languages as they come, 0 all alike.

    Returns
    -------
    numpy.ndarray
        (clips,) summing to 1; within a language by length.

    Example
    -------
    >>> clip_probabilities(np.array([1, 3, 4]), ["a", "a", "b"], 0.0).tolist()
    [0.125, 0.375, 0.5]
    """
    names, group = np.unique(np.asarray(languages), return_inverse=True)
    amount = np.bincount(group, weights=lengths, minlength=len(names))
    share = (amount / amount.sum()) ** alpha
    return lengths / amount[group] * (share / share.sum())[group]


def draw_spans(
    frames: np.ndarray,
    share: float,
    length: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Draw which frames are hidden from the encoder.

    Spans start at random and may overlap, so less than `share` is hidden
    (HuBERT, Hsu et al., 2021, section II-C). Each clip has one span or more.

    Arguments
    ---------
    frames : numpy.ndarray
        (batch,) valid frames of each clip.
    share : float
        Of the frames that spans would hide if they never overlapped.
    length : int
        Frames of a span.
    generator : numpy.random.Generator
        Where they start.

    Returns
    -------
    numpy.ndarray
        (batch, max(frames)) bool, True where hidden; never in the padding.

    Example
    -------
    >>> draw_spans(np.array([9]), 0.4, 3, np.random.default_rng(0)).sum() >= 3
    np.True_
    """
    hidden = np.zeros((len(frames), int(frames.max())), dtype=bool)
    for row, valid in zip(hidden, frames, strict=True):
        span = min(length, int(valid))
        count = max(1, int(share * valid / span + generator.random()))
        starts = generator.integers(0, valid - span + 1, count)
        row[(starts[:, None] + np.arange(span)).ravel()] = True
    return hidden


class CropBatches(Dataset):
    """Batches of about equally many frames.

    Crops of `gather` batches are drawn together, sorted by length and cut
    into batches, so that a batch holds crops of like lengths.

    Arguments
    ---------
    versions : sequence of Ragged
        Features of the same clips: the clean ones, then degraded ones.
    units : Ragged
        Targets of the clips.
    probabilities : numpy.ndarray
        (clips,) see `clip_probabilities`.
    batches : int
        In an epoch.
    batch_frames : int
        Of one batch, on average.
    crop_frames : int
        Longest crop.
    degraded_share : float
        Of the crops that come from a degraded version.
    span_share, span_frames : float, int
        See `draw_spans`.
    seed : int
        Of everything that is drawn.
    gather : int
        Batches that are drawn together.
    """

    def __init__(
        self,
        versions: Sequence[Ragged],
        units: Ragged,
        probabilities: np.ndarray,
        batches: int,
        batch_frames: int = 1200,
        crop_frames: int = 400,
        degraded_share: float = 0.7,
        span_share: float = 0.5,
        span_frames: int = 8,
        seed: int = 0,
        gather: int = 8,
    ) -> None:
        self.versions = versions
        self.unit_store = units
        self.lengths = np.minimum(versions[0].lengths, units.lengths)
        self.cumulative = np.cumsum(probabilities)
        self.batches = batches
        self.batch_frames = batch_frames
        self.crop_frames = min(crop_frames, batch_frames)
        self.degraded_share = degraded_share
        self.span_share = span_share
        self.span_frames = span_frames
        self.seed = seed
        self.gather = gather
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, which decides what is drawn."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> CropBatch:
        if not 0 <= index < self.batches:
            raise IndexError(index)
        gathered, part = divmod(index, self.gather)
        crops = self._draw(gathered)
        middles = np.cumsum(crops[:, 2]) - crops[:, 2] / 2
        bounds = crops[:, 2].sum() * np.arange(self.gather + 1) / self.gather
        order = np.random.default_rng(
            [self.seed, self.epoch, gathered, 1]
        ).permutation(self.gather)
        low, high = bounds[order[part]], bounds[order[part] + 1]
        chosen = crops[(middles >= low) & (middles < high)]
        generator = np.random.default_rng([self.seed, self.epoch, index, 2])
        return self._batch(chosen, generator)

    def _draw(self, gathered: int) -> np.ndarray:
        """Return (crops, 3): clip, first frame, frames; sorted by length."""
        generator = np.random.default_rng([self.seed, self.epoch, gathered, 0])
        wanted = self.batch_frames * self.gather
        crops: list[tuple[int, int, int]] = []
        while wanted > 0:
            draw = generator.random() * self.cumulative[-1]
            clip = int(np.searchsorted(self.cumulative, draw, "right"))
            clip = min(clip, len(self.lengths) - 1)
            length = int(min(self.lengths[clip], self.crop_frames))
            length = max(length // ROUND * ROUND, min(length, ROUND))
            first = int(generator.integers(self.lengths[clip] - length + 1))
            crops.append((clip, first, length))
            wanted -= length
        table = np.array(crops)
        return table[np.argsort(table[:, 2], kind="stable")]

    def _batch(
        self, crops: np.ndarray, generator: np.random.Generator
    ) -> CropBatch:
        frames = crops[:, 2]
        width = self.versions[0][0].shape[1]
        shape = (len(crops), int(frames.max()))
        features = np.zeros((*shape, width), dtype=np.float32)
        units = np.full(shape, -100, dtype=np.int64)
        for row, (clip, first, length) in enumerate(crops):
            version = 0
            if len(self.versions) > 1:
                if generator.random() < self.degraded_share:
                    version = int(generator.integers(1, len(self.versions)))
            part = slice(first, first + length)
            features[row, :length] = self.versions[version][clip][part]
            units[row, :length] = self.unit_store[clip][part]
        hidden = draw_spans(
            frames, self.span_share, self.span_frames, generator
        )
        return CropBatch(
            torch.from_numpy(features),
            torch.from_numpy(frames.astype(np.int64)),
            torch.from_numpy(hidden),
            torch.from_numpy(units),
        )
