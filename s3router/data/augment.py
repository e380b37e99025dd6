"""Degraded copies of training clips: other speeds, noise, talkers, rooms.

Each clip has a fixed number of copies, a function of seed, clip and number,
so that a frozen front end can compute them once; which one is seen is drawn
each time. Dev and test clips never have copies.
"""

import os
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from s3router.data.audio import read_audio
from s3router.data.degrade import SPEEDS, degrade, speed_up

MARK = "#copy"


def copy_id(uid: str, number: int) -> str:
    """Return the ID of a clip's copy; copy 0 is the clip itself.

    Example
    -------
    >>> copy_id("a", 0), copy_id("a", 2)
    ('a', 'a#copy2')
    """
    return f"{uid}{MARK}{number}" if number else uid


class DegradedClips:
    """Samples of clips and of their degraded copies, by ID.

    Arguments
    ---------
    wavs : mapping
        ID of each training clip to its file.
    sample_rate : int
        Samples per second.
    shortest : int
        Samples that a copy has at least: where it would be shorter, silence
        is added.
    seed : int
        Of all that is drawn.
    """

    def __init__(
        self,
        wavs: Mapping[str, str | os.PathLike],
        sample_rate: int = 16000,
        shortest: int = 1,
        seed: int = 0,
    ) -> None:
        self.wavs = dict(wavs)
        self.names = sorted(self.wavs)
        self.sample_rate = sample_rate
        self.shortest = shortest
        self.seed = seed

    def __call__(self, identifier: str) -> torch.Tensor:
        """Return the samples of a clip or of a copy.

        Arguments
        ---------
        identifier : str
            As of `copy_id`.

        Returns
        -------
        torch.Tensor
            (samples,) float32.
        """
        uid, _, number = identifier.partition(MARK)
        clean = read_audio(self.wavs[uid], self.sample_rate)
        if not number:
            return clean
        key = [self.seed, zlib.crc32(uid.encode()), int(number)]
        generator = np.random.default_rng(key)
        faster = speed_up(clean.numpy(), float(generator.choice(SPEEDS)))
        other = self._another(uid, generator)
        talker = read_audio(self.wavs[other], self.sample_rate).numpy()
        copy = degrade(faster, talker, generator, self.sample_rate)
        missing = max(0, self.shortest - copy.size)
        return torch.from_numpy(np.pad(copy, (0, missing)))

    def _another(self, uid: str, generator: np.random.Generator) -> str:
        """Return a clip to talk along: another one, if there is one."""
        drawn = int(generator.integers(len(self.names)))
        if self.names[drawn] == uid:
            drawn = (drawn + 1) % len(self.names)
        return self.names[drawn]


class DrawnCopies:
    """Draws a clip or one of its copies each time it is asked.

    The draw is torch's, whose state a checkpoint keeps.

    Arguments
    ---------
    get : callable
        ID, as of `copy_id`, to what is kept of it.
    copies : int
        Copies of each clip, 0 or more.
    """

    def __init__(self, get: Callable[[str], torch.Tensor], copies: int) -> None:
        self.get = get
        self.copies = copies

    def __call__(self, uid: str) -> torch.Tensor:
        """Return the clip's or a copy's tensor, each as likely."""
        if not self.copies:
            return self.get(uid)
        number = int(torch.randint(self.copies + 1, ()))
        return self.get(copy_id(uid, number))


def with_copies(uids: Sequence[str], copies: int) -> list[str]:
    """Return the IDs of clips and of all their copies."""
    return [copy_id(uid, n) for uid in uids for n in range(copies + 1)]
