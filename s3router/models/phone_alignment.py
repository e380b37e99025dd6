"""Which phone is heard when: forced alignment with Gaussian mixtures.

The classical recipe for monophones: a flat start, then turns of finding the
best path (Viterbi) and estimating the mixtures from it. It knows MFCCs only,
so that what it says of a frame is no echo of the encoder that is measured
against it. Numbers in, labels out: reads no files and no audio.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from s3router.errors import DataError, SettingError
from s3router.models.frame_grid import FrameGrid
from s3router.models.gaussian_mixtures import Mixtures
from s3router.models.phone_directions import fit_phone_directions
from s3router.models.state_paths import (
    SILENCE,
    StatePath,
    Words,
    best_paths,
    state_path,
)
from s3router.models.units import SPECTRA

#: A phone with fewer frames says nothing of how phones differ.
_RARE = 10


@dataclass(frozen=True)
class AlignerSettings:
    """How phones are aligned.

    Arguments
    ---------
    plain_turns : int
        Turns with one Gaussian a phone on MFCCs as they are.
    turns : int
        Turns afterwards, on discriminant directions of frames with their
        neighbours.
    components : int
        Gaussians a phone has in the end, where it is frequent enough.
    directions : int
        Discriminant directions; 0: MFCCs all the way.
    context : int
        Neighbours on either side that directions see.
    shortest : int
        Frames that a phone takes, at least.
    """

    # On ten minutes of synthetic English in 32 voices, whose times are known,
    # equal shares have 36% of frames right, one Gaussian 79%, these settings
    # 82% (92% within a frame). Two states a phone: 84% there, but 69% for 80%
    # where words are few.
    plain_turns: int = 12
    turns: int = 8
    components: int = 4
    directions: int = 39
    context: int = 1
    shortest: int = 2

    def __post_init__(self) -> None:
        least = {"components": 1, "shortest": 1, "plain_turns": 1}
        for name in self.__dataclass_fields__:
            if getattr(self, name) < least.get(name, 0):
                raise SettingError(
                    f"{name} of the aligner is {getattr(self, name)}; it must "
                    f"be {least.get(name, 0)} or more"
                )


class AlignedClip(NamedTuple):
    """A clip and the phone of each of its 20 ms frames.

    `id` and `wav` as in the manifest, `phones` (frames,) text, "" for
    silence; frames are those of `s3router.models.units.SPECTRA`.
    """

    id: str
    wav: str
    phones: np.ndarray

    def on(self, grid: FrameGrid, count: int) -> np.ndarray:
        """Return the phone in the middle of each frame of another grid.

        Arguments
        ---------
        grid : FrameGrid
            Of the encoder.
        count : int
            Frames of the encoder.

        Returns
        -------
        numpy.ndarray
            (count,) text.

        Example
        -------
        >>> clip = AlignedClip("a", "a.wav", np.array(["", "a", "a", "b"]))
        >>> clip.on(FrameGrid(window=720, hop=640), 2).tolist()
        ['a', 'b']
        """
        # The middle of a 20 ms frame is 200 samples after its start, and the
        # frame stands for the 160 on either side.
        offset = SPECTRA.window // 2 - SPECTRA.hop // 2
        index = (grid.middles(count) - offset) // SPECTRA.hop
        return self.phones[np.clip(index, 0, len(self.phones) - 1)]


def equal_segments(frames: np.ndarray, phones: Sequence[int]) -> np.ndarray:
    """Return labels of a flat start: the loud part in equal shares.

    Arguments
    ---------
    frames : numpy.ndarray
        (frames, width) MFCCs; the first coefficient is the loudness.
    phones : sequence of int
        Labels of the phones, in order; label 0 is silence.

    Returns
    -------
    numpy.ndarray
        (frames,) labels.

    Example
    -------
    >>> loudness = np.array([0, 9, 9, 8, 9, 0.0])[:, None]
    >>> equal_segments(loudness, [1, 2]).tolist()
    [0, 1, 1, 2, 2, 0]
    """
    loudness = frames[:, 0]
    low, high = np.percentile(loudness, [5, 90])
    loud = np.flatnonzero(loudness > low + 0.3 * (high - low))
    first, end = (loud[0], loud[-1] + 1) if loud.size else (0, len(frames))
    if end - first < len(phones):
        first, end = 0, len(frames)
    labels = np.zeros(len(frames), np.int64)
    share = np.arange(end - first) * len(phones) // (end - first)
    labels[first:end] = np.asarray(phones)[share]
    return labels


def align_phones(
    frames: Sequence[np.ndarray],
    words: Sequence[Words],
    settings: AlignerSettings | None = None,
) -> list[np.ndarray | None]:
    """Align the phones of clips with their frames.

    Arguments
    ---------
    frames : sequence of numpy.ndarray
        (frames, width) MFCCs of each clip with differences, normalised by
        speaker; the first coefficient is the loudness.
    words : sequence of sequence of sequence of str
        Phones of each clip by word; between words there may be a pause.
    settings : AlignerSettings or None
        None: its defaults.

    Returns
    -------
    list of numpy.ndarray or None
        (frames,) text, "" for silence; None for a clip that has no phones,
        or fewer frames than its phones take.

    Raises
    ------
    DataError
        If no clip is left.
    """
    settings = settings or AlignerSettings()
    names = [SILENCE, *sorted({p for clip in words for w in clip for p in w})]
    index = {name: number for number, name in enumerate(names)}
    paths = [state_path(clip, index, settings.shortest) for clip in words]
    kept = [
        clip
        for clip, path in enumerate(paths)
        if 0 < (~path.pauses).sum() <= len(frames[clip])
    ]
    if not kept:
        raise DataError(
            f"none of {len(frames)} clips can be aligned: they have no "
            "phones, or fewer frames than phones"
        )
    aligner = _Aligner([paths[clip] for clip in kept], len(names), settings)
    found = aligner.run([frames[clip] for clip in kept])
    labels: list[np.ndarray | None] = [None] * len(frames)
    for clip, one in zip(kept, found, strict=True):
        labels[clip] = np.array(names)[one]
    return labels


class _Aligner:
    """Turns of best paths and mixtures over a set of clips."""

    def __init__(
        self, paths: list[StatePath], count: int, settings: AlignerSettings
    ) -> None:
        self.paths = paths
        self.count = count
        self.settings = settings

    def run(self, frames: list[np.ndarray]) -> list[np.ndarray]:
        """Return the labels of each clip."""
        settings = self.settings
        labels = [
            equal_segments(clip, path.models[~path.pauses & path.loops])
            for clip, path in zip(frames, self.paths, strict=True)
        ]
        labels = self.turns(frames, labels, settings.plain_turns, 1)
        if settings.directions:
            frames = self.discriminant(frames, labels)
        return self.turns(frames, labels, settings.turns, settings.components)

    def discriminant(
        self, frames: list[np.ndarray], labels: list[np.ndarray]
    ) -> list[np.ndarray]:
        """Return frames with their neighbours, where phones differ most."""
        # Differences are a rough form of neighbours: two thirds are theirs.
        static = frames[0].shape[1] // 3
        wide = [
            _neighbours(clip[:, :static], self.settings.context)
            for clip in frames
        ]
        together, heard = np.concatenate(wide), np.concatenate(labels)
        common = (np.bincount(heard) >= _RARE)[heard]
        if len(np.unique(heard[common])) < 2:
            return frames
        project = fit_phone_directions(
            together[common], heard[common], self.settings.directions
        )
        return [project(clip) for clip in wide]

    def turns(
        self,
        frames: list[np.ndarray],
        labels: list[np.ndarray],
        turns: int,
        components: int,
    ) -> list[np.ndarray]:
        """Return labels after some turns, mixtures growing on the way."""
        together = np.concatenate(frames)
        mixtures = Mixtures(together, np.concatenate(labels), self.count)
        size = 1
        for turn in tqdm(range(turns), desc="align phones", leave=False):
            if turn:
                mixtures.fit(together, np.concatenate(labels))
            if turn % 2 and size < components:
                mixtures.split()
                mixtures.fit(together, np.concatenate(labels))
                size *= 2
            labels = self.align(mixtures, frames)
        return labels

    def align(
        self, mixtures: Mixtures, frames: list[np.ndarray]
    ) -> list[np.ndarray]:
        """Return the labels of the best paths."""
        labels: list[np.ndarray] = [np.empty(0)] * len(frames)
        for batch in _batches([len(clip) for clip in frames]):
            # One call for all: there are many short clips.
            together = mixtures.scores(
                np.concatenate([frames[clip] for clip in batch])
            )
            ends = np.cumsum([len(frames[clip]) for clip in batch])
            scores = np.split(together, ends[:-1])
            paths = [self.paths[clip] for clip in batch]
            for clip, states in zip(
                batch, best_paths(scores, paths), strict=True
            ):
                labels[clip] = self.paths[clip].models[states]
        return labels


def _neighbours(frames: np.ndarray, context: int) -> np.ndarray:
    padded = np.pad(frames, ((context, context), (0, 0)), mode="edge")
    count = 2 * context + 1
    return np.concatenate(
        [padded[shift : shift + len(frames)] for shift in range(count)], axis=1
    )


def _batches(lengths: Sequence[int], size: int = 64) -> Iterator[np.ndarray]:
    """Yield clips of about equal length, so that little is padded."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]
