"""Cuts long audio at quiet places, and stitches the frames again.

Attention costs the square of the length, and models are trained on clips of
seconds. So a long file is cut into pieces; each piece is run with some audio
on either side as context, and only the frames of the piece itself are kept.
The frames of all pieces then form one CTC path: nothing is doubled or lost at
a seam.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from s3router.errors import SettingError

# Seconds over which loudness is measured: about a short pause in speech.
_PAUSE = 0.2
# Loudness is measured every so many seconds.
_STEP = 0.01


@dataclass(frozen=True)
class Segment:
    """A piece of a long recording; all positions are samples.

    Arguments
    ---------
    start, end : int
        The piece whose frames are kept.
    context_start, context_end : int
        What the model hears: the piece and its context.
    """

    start: int
    end: int
    context_start: int
    context_end: int


def find_segments(
    samples: np.ndarray,
    sample_rate: int,
    seconds: float = 30.0,
    search: float = 5.0,
    context: float = 1.0,
    hop: int = 320,
) -> list[Segment]:
    """Cut a recording into pieces at its quietest places.

    Arguments
    ---------
    samples : np.ndarray
        (samples,) float32.
    sample_rate : int
        Samples per second.
    seconds : float
        Longest piece, without context. A recording that is no longer stays
        whole.
    search : float
        A piece ends at the quietest place in its last `search` seconds; at
        most half of `seconds`.
    context : float
        Seconds of audio on either side that the model hears as well; at most
        a quarter of `seconds`.
    hop : int
        Samples between frames of the model. What it hears begins at a
        multiple of it, so that the frames of all pieces lie on one grid.

    Returns
    -------
    list of Segment
        Pieces that follow on each other and cover the recording.

    Raises
    ------
    SettingError
        If `seconds` is below 2.

    Example
    -------
    >>> [s.end for s in find_segments(np.zeros(16000 * 3), 16000)]
    [48000]
    """
    if not seconds >= 2:
        raise SettingError(
            f"pieces of {seconds} s are too short to recognise; give at "
            f"least 2 s"
        )
    longest = int(seconds * sample_rate)
    window = int(min(search, seconds / 2) * sample_rate)
    margin = int(min(context, seconds / 4) * sample_rate)
    total, cuts = len(samples), [0]
    while total - cuts[-1] > longest:
        # The rest must not become shorter than the search window.
        last = min(cuts[-1] + longest, total - window)
        first = max(last - window, cuts[-1] + window // 2)
        cuts.append(_quietest(samples, first, last, sample_rate))
    cuts.append(total)
    return [
        Segment(
            start,
            end,
            max(0, start - margin) // hop * hop,
            min(total, end + margin),
        )
        for start, end in pairwise(cuts)
    ]


def kept_frames(segment: Segment, frames: int, hop: int, field: int) -> slice:
    """Return which frames of a piece's output belong to the piece.

    A frame belongs to the piece in which its middle lies.

    Arguments
    ---------
    segment : Segment
        The piece.
    frames : int
        Frames that the model gave for the piece with its context.
    hop : int
        Samples between frames.
    field : int
        Samples that one frame sees in the front end.

    Returns
    -------
    slice
        Over frames.
    """
    middles = segment.context_start + np.arange(frames) * hop + field // 2
    first, last = 0, frames
    if segment.context_start < segment.start:
        first = int(np.searchsorted(middles, segment.start))
    if segment.context_end > segment.end:
        last = int(np.searchsorted(middles, segment.end))
    return slice(first, last)


def _quietest(
    samples: np.ndarray, first: int, last: int, sample_rate: int
) -> int:
    """Return the middle of the quietest `_PAUSE` between two positions."""
    pause = max(1, int(_PAUSE * sample_rate))
    step = max(1, int(_STEP * sample_rate))
    part = samples[first:last].astype(np.float64)
    if len(part) <= pause:
        return last
    power = np.concatenate([[0.0], np.cumsum(part**2)])
    energy = (power[pause:] - power[:-pause])[::step]
    # The last of equals, so that silence gives long pieces.
    best = len(energy) - 1 - int(np.argmin(energy[::-1]))
    return first + best * step + pause // 2
