"""Batches of crops whose targets are clean frames, told from distractors.

As `s3router.data.crops`, for wav2vec 2.0 (Baevski et al., 2020, section 3.2):
a function of seed and number, distractors included.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from s3router.data.crops import CropBatches, Version


class ContrastiveBatch(NamedTuple):
    """Crops, what is hidden of them, and what was there in the clean clip.

    `features` (batch, frames, channels) float32, `frames` (batch,) int64,
    `hidden` (batch, frames) bool; `chosen` (targets,) int64, the hidden frames
    in the flattened batch; `targets` (targets, channels) float32;
    `distractors` (targets, distractors) int64, rows of `targets`, -1: none.
    """

    features: torch.Tensor
    frames: torch.Tensor
    hidden: torch.Tensor
    chosen: torch.Tensor
    targets: torch.Tensor
    distractors: torch.Tensor

    def to(self, *args: object, **kwargs: object) -> "ContrastiveBatch":
        """Return the batch on another device; `frames` stays on the CPU."""
        moved = {
            name: getattr(self, name).to(*args, **kwargs)
            for name in self._fields
            if name != "frames"
        }
        return self._replace(**moved)


def draw_distractors(
    rows: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw other hidden frames of the same clip, with repetition.

    Arguments
    ---------
    rows : numpy.ndarray
        (targets,) which crop each is of, rising.
    count : int
        Distractors of each.
    generator : numpy.random.Generator
        Source.

    Returns
    -------
    numpy.ndarray
        (targets, count) int64; -1 where a clip has one hidden frame only.

    Example
    -------
    >>> rows = np.array([0, 0, 1])
    >>> draw_distractors(rows, 2, np.random.default_rng(0)).tolist()
    [[1, 1], [0, 0], [-1, -1]]
    """
    _, first, size = np.unique(rows, return_index=True, return_counts=True)
    first, size = np.repeat(first, size), np.repeat(size, size)
    own = np.arange(len(rows)) - first
    others = np.maximum(1, size - 1)
    drawn = generator.integers(0, others[:, None], (len(rows), count))
    drawn += drawn >= own[:, None]
    return np.where(size[:, None] > 1, drawn + first[:, None], -1)


class ContrastiveBatches(CropBatches):
    """Batches of crops of one length, with clean targets and distractors.

    Arguments
    ---------
    versions : sequence of Version
        As of `CropBatches`.
    probabilities : numpy.ndarray
        (clips,) see `clip_probabilities`.
    batches : int
        In an epoch.
    distractors : int
        Of each hidden frame.
    **options
        Of `CropBatches`.
    """

    def __init__(
        self,
        versions: Sequence[Version],
        probabilities: np.ndarray,
        batches: int,
        distractors: int = 100,
        **options,
    ) -> None:
        # In the place of units: the number of each frame of the clean clip.
        numbers = FrameNumbers(versions[0].features.lengths)
        super().__init__(versions, numbers, probabilities, batches, **options)
        self.distractors = distractors

    def __getitem__(self, index: int) -> ContrastiveBatch:
        clips, batch = self.drawn(index)
        generator = np.random.default_rng([self.seed, self.epoch, index, 1])
        rows, columns = np.nonzero(batch.hidden.numpy())
        shown = batch.units.numpy()[rows, columns]
        clean = self.versions[0].features
        targets = [
            clean[clips[row]][frame]
            for row, frame in zip(rows, shown, strict=True)
        ]
        drawn = draw_distractors(rows, self.distractors, generator)
        return ContrastiveBatch(
            batch.features,
            batch.frames,
            batch.hidden,
            torch.from_numpy(rows * batch.hidden.shape[1] + columns),
            torch.from_numpy(np.stack(targets).astype(np.float32)),
            torch.from_numpy(drawn),
        )


class FrameNumbers:
    """The frames of each clip, counted: what `Ragged` would hold of them.

    Arguments
    ---------
    lengths : numpy.ndarray
        (clips,) frames of each.

    Example
    -------
    >>> FrameNumbers(np.array([2, 3]))[1].tolist()
    [0, 1, 2]
    """

    def __init__(self, lengths: np.ndarray) -> None:
        self.lengths = lengths

    def __getitem__(self, index: int) -> np.ndarray:
        return np.arange(self.lengths[index])
