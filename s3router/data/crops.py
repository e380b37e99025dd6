"""Batches of random crops for pre-training, a function of seed and number.

Item i of the data set is batch i of the epoch. It depends on seed, epoch and i
alone, so that a run that was killed goes on with the very batch that came
next. Languages are drawn by (n_l / N) ** alpha (Conneau et al., 2020, XLSR).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from s3router.data.ragged import Ragged
from s3router.errors import DataError

#: Crops have one of few lengths, so many in each octave, and those of a batch
#: the same: CPU kernels are compiled per shape, and nothing is padded.
LENGTHS_IN_OCTAVE = 4

#: In stored units: what the frame shows is not known, and not trained on.
UNKNOWN = 65535


class Version(NamedTuple):
    """One copy of the pool's features.

    `features` has (frames, channels) per clip. `shown` tells which frames of
    the clean clip they show, from the clip, how many frames of the copy are
    asked for, and how many the clip has; None: the same ones.
    """

    features: Ragged
    shown: Callable[[int, int, int], np.ndarray] | None = None


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
        """Return the batch on another device.

        `frames` stays where it is: whether anything is padded is a question
        for the CPU, which need not wait for the device then.
        """
        moved = {
            name: getattr(self, name).to(*args, **kwargs)
            for name in ("features", "hidden", "units")
        }
        return self._replace(**moved)


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


def crop_lengths(longest: int) -> np.ndarray:
    """Return the lengths that crops may have, rising.

    Arguments
    ---------
    longest : int
        Frames.

    Returns
    -------
    numpy.ndarray
        Every length up to 2 * `LENGTHS_IN_OCTAVE`, then so many in each
        octave; `longest` is one of them.

    Example
    -------
    >>> crop_lengths(21).tolist()
    [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 21]
    """
    lengths = [longest]
    step, length = 1, 1
    while length < longest:
        lengths.append(length)
        if length >= 2 * LENGTHS_IN_OCTAVE * step:
            step *= 2
        length += step
    return np.unique(lengths)


class CropBatches(Dataset):
    """Batches of crops of one length.

    A clip, drawn by its probability, decides the length; the other crops of
    the batch are of clips of that length class.

    Arguments
    ---------
    versions : sequence of Version
        Features of the same clips: the clean ones, then degraded ones.
    units : Ragged
        Targets of the clean clips.
    probabilities : numpy.ndarray
        (clips,) see `clip_probabilities`.
    batches : int
        In an epoch.
    batch_frames : int
        Of one batch, at most; one crop or more.
    crop_frames : int
        Longest crop.
    degraded_share : float
        Of the crops that come from a degraded version.
    span_share, span_frames : float, int
        See `draw_spans`.
    seed : int
        Of everything that is drawn.

    Raises
    ------
    DataError
        If no clip can be drawn.
    """

    def __init__(
        self,
        versions: Sequence[Version],
        units: Ragged,
        probabilities: np.ndarray,
        batches: int,
        batch_frames: int = 600,
        crop_frames: int = 200,
        degraded_share: float = 0.7,
        span_share: float = 0.5,
        span_frames: int = 5,
        seed: int = 0,
    ) -> None:
        self.versions = versions
        self.unit_store = units
        self.lengths = [version.features.lengths for version in versions]
        self.lengths[0] = np.minimum(self.lengths[0], units.lengths)
        self.batches = batches
        self.batch_frames = batch_frames
        self.degraded_share = degraded_share
        self.span_share = span_share
        self.span_frames = span_frames
        self.seed = seed
        self.epoch = 0
        # Whichever version is drawn is long enough for the clip's class.
        shortest = np.minimum.reduce(self.lengths)
        self.classes = crop_lengths(min(crop_frames, batch_frames))
        found = np.searchsorted(self.classes, shortest, "right") - 1
        usable = (probabilities > 0) & (found >= 0)
        self.members = [
            np.flatnonzero(usable & (found == number))
            for number in range(len(self.classes))
        ]
        self.cumulative = [
            np.cumsum(probabilities[members]) for members in self.members
        ]
        self.class_share = np.cumsum(
            [c[-1] if len(c) else 0.0 for c in self.cumulative]
        )
        if self.class_share[-1] <= 0:
            raise DataError(
                "there is no clip to draw: none has a whole frame, or those "
                "that have are all held out; give more audio"
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, which decides what is drawn."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, index: int) -> CropBatch:
        return self.drawn(index)[1]

    def drawn(self, index: int) -> tuple[list[int], CropBatch]:
        """Return the clips of a batch's crops, and the batch.

        Arguments
        ---------
        index : int
            Of the batch in the epoch.

        Returns
        -------
        list of int
            One for each crop.
        CropBatch
            The batch.
        """
        if not 0 <= index < self.batches:
            raise IndexError(index)
        generator = np.random.default_rng([self.seed, self.epoch, index])
        number = _draw(self.class_share, generator)
        length = int(self.classes[number])
        count = max(1, self.batch_frames // length)
        clips = [
            int(self.members[number][_draw(self.cumulative[number], generator)])
            for _ in range(count)
        ]
        crops = [self._crop(clip, length, generator) for clip in clips]
        frames = np.full(count, length, dtype=np.int64)
        hidden = draw_spans(
            frames, self.span_share, self.span_frames, generator
        )
        return clips, CropBatch(
            torch.from_numpy(np.stack([crop[0] for crop in crops])),
            torch.from_numpy(frames),
            torch.from_numpy(hidden),
            torch.from_numpy(np.stack([crop[1] for crop in crops])),
        )

    def _crop(
        self, clip: int, length: int, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return features (length, channels) float32 and units int64."""
        version = 0
        if len(self.versions) > 1:
            if generator.random() < self.degraded_share:
                version = int(generator.integers(1, len(self.versions)))
        spare = int(self.lengths[version][clip]) - length
        first = int(generator.integers(spare + 1))
        part = slice(first, first + length)
        features = self.versions[version].features[clip][part]
        units = self._units(clip, version, part)
        targets = np.where(units == UNKNOWN, -100, units.astype(np.int64))
        return features.astype(np.float32), targets

    def _units(self, clip: int, version: int, part: slice) -> np.ndarray:
        units = self.unit_store[clip]
        shown = self.versions[version].shown
        if shown is None:
            return units[part]
        return units[shown(clip, part.stop, len(units))[part]]


def _draw(cumulative: np.ndarray, generator: np.random.Generator) -> int:
    draw = generator.random() * cumulative[-1]
    found = int(np.searchsorted(cumulative, draw, "right"))
    return min(found, len(cumulative) - 1)
