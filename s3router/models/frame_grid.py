"""Where an encoder's frames lie in time.

Derived from the convolutions of its front end, so that targets, labels and
audio agree for any encoder: 20 ms for wav2vec 2.0 and HuBERT, 40 ms for the
embedded encoder.
"""

from typing import NamedTuple

import numpy as np
from transformers import PretrainedConfig

from s3router.models.lengths import shortest_clip

RATE = 16000


class FrameGrid(NamedTuple):
    """Frame t sees the samples hop * t to hop * t + window, at 16 kHz.

    Example
    -------
    >>> grid = FrameGrid(window=400, hop=320)
    >>> grid.frames(16000), grid.frames_per_second
    (49, 50.0)
    """

    window: int
    hop: int

    @classmethod
    def of(cls, config: PretrainedConfig) -> "FrameGrid":
        """Return the grid of an encoder's configuration."""
        return cls(
            shortest_clip(config.conv_kernel, config.conv_stride),
            int(np.prod(config.conv_stride)),
        )

    @property
    def frames_per_second(self) -> float:
        """Frames in a second of a long clip."""
        return RATE / self.hop

    def frames(self, samples: int) -> int:
        """Return how many whole frames a clip has, 0 or more."""
        return max(0, (samples - self.window) // self.hop + 1)

    def middles(self, count: int) -> np.ndarray:
        """Return the sample in the middle of each of the first frames.

        Arguments
        ---------
        count : int
            Frames.

        Returns
        -------
        numpy.ndarray
            (count,) int64.
        """
        return np.arange(count) * self.hop + self.window // 2

    def sped_up(self, count: int, speed: float, limit: int) -> np.ndarray:
        """Return which frame of a clip each frame of its faster copy shows.

        Arguments
        ---------
        count : int
            Frames of the copy.
        speed : float
            Of the copy: above 1 it is shorter than the clip.
        limit : int
            Frames of the clip.

        Returns
        -------
        numpy.ndarray
            (count,) int64, from 0 to `limit` - 1.

        Example
        -------
        >>> FrameGrid(400, 320).sped_up(3, 2.0, 8).tolist()
        [1, 3, 5]
        """
        times = self.middles(count) * speed - self.window // 2
        nearest = np.rint(times / self.hop).astype(np.int64)
        return np.clip(nearest, 0, limit - 1)
