"""Batches of a fixed number of optimizer steps, the same for every method."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from encoder_data import Clip
from encoder_features import Features
from speechbrain.dataio.batch import PaddedBatch
from torch.utils.data import DataLoader, Dataset

from s3router.data.tokens import Tokens


class TrialClips(Dataset):
    """Clips of a task as a Brain reads them; an index is (clip, copy).

    Arguments
    ---------
    clips : sequence of Clip
        What can be asked for.
    tokens : Tokens
        Of the labels.
    features : Features
        Of these clips, maybe of others too.
    """

    def __init__(
        self, clips: Sequence[Clip], tokens: Tokens, features: Features
    ) -> None:
        self.clips = clips
        self.features = features
        self.targets = [torch.tensor(tokens.encode(c.text)) for c in clips]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: tuple[int, int]) -> dict[str, object]:
        place, copy = index
        clip = self.clips[place]
        return {
            "id": clip.id,
            "features": self.features.of(clip.id, copy),
            "tokens": self.targets[place],
            "wrd": clip.text,
        }


def training_batches(
    seconds: Sequence[float],
    steps: int,
    batch_seconds: float,
    copies: int,
    seed: int,
) -> Iterator[list[tuple[int, int]]]:
    """Yield batches of clips of like length, epoch after epoch.

    Arguments
    ---------
    seconds : sequence of float
        Duration of each clip.
    steps : int
        Batches to yield.
    batch_seconds : float
        A batch is full before it holds more; one clip always fits.
    copies : int
        A clip comes clean with probability 1 / (copies + 1), else as one of
        its copies.
    seed : int
        Of everything that is drawn.

    Yields
    ------
    list of (int, int)
        Clip and copy.
    """
    generator = np.random.default_rng([seed, 1])
    lengths = np.asarray(seconds)
    done = 0
    while done < steps:
        # Alike, not sorted: neighbours change from epoch to epoch.
        order = np.argsort(lengths * generator.uniform(0.8, 1.25, len(lengths)))
        batches = fill(order.tolist(), seconds, batch_seconds)
        for index in generator.permutation(len(batches))[: steps - done]:
            chosen = generator.integers(copies + 1, size=len(batches[index]))
            yield list(zip(batches[index], chosen.tolist(), strict=True))
            done += 1


def fill(
    order: Sequence[int], seconds: Sequence[float], batch_seconds: float
) -> list[list[int]]:
    """Cut an order of clips into batches of so many seconds.

    Example
    -------
    >>> fill([0, 1, 2, 3], [1.0, 1.0, 1.0, 5.0], 2.0)
    [[0, 1], [2], [3]]
    """
    batches: list[list[int]] = []
    room = 0.0
    for index in order:
        if not batches or seconds[index] > room:
            batches.append([])
            room = batch_seconds
        batches[-1].append(index)
        room -= seconds[index]
    return batches


def training_loader(
    clips: TrialClips,
    steps: int,
    batch_seconds: float,
    copies: int,
    seed: int,
) -> DataLoader:
    """Return a loader of exactly `steps` batches; see `training_batches`."""
    seconds = [clip.seconds for clip in clips.clips]
    batches = training_batches(seconds, steps, batch_seconds, copies, seed)
    return _loader(clips, list(batches))


def evaluation_loader(
    clips: TrialClips, batch_seconds: float = 30.0
) -> DataLoader:
    """Return a loader that gives every clip once, clean, longest first."""
    seconds = [clip.seconds for clip in clips.clips]
    order = sorted(range(len(clips)), key=lambda i: -seconds[i])
    batches = fill(order, seconds, batch_seconds)
    return _loader(clips, [[(i, 0) for i in batch] for batch in batches])


def _loader(clips: TrialClips, batches: list[list[tuple]]) -> DataLoader:
    return DataLoader(clips, batch_sampler=batches, collate_fn=PaddedBatch)
