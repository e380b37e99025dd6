"""Cutting long recordings, and putting the frames together again."""

from itertools import pairwise

import numpy as np
import pytest

from s3router.errors import SettingError
from s3router.runtime.segments import find_segments, kept_frames

RATE, HOP, FIELD = 16000, 320, 400


def frames_of(samples: int) -> int:
    return (samples - FIELD) // HOP + 1


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(int(seconds * RATE)).astype(np.float32)


def test_short_recordings_stay_whole():
    for seconds in (0.1, 29.9, 30.0):
        samples = noise(seconds)
        (only,) = find_segments(samples, RATE)
        assert (only.context_start, only.start) == (0, 0)
        assert only.end == only.context_end == len(samples)


def test_cuts_lie_in_the_pauses():
    samples = noise(100)
    pauses = [27.0, 53.5, 79.0]
    for pause in pauses:
        samples[int(pause * RATE) : int((pause + 0.4) * RATE)] *= 0.01
    ends = [s.end / RATE for s in find_segments(samples, RATE)[:-1]]
    assert len(ends) == 3
    for end, pause in zip(ends, pauses, strict=True):
        assert pause <= end <= pause + 0.4


@pytest.mark.parametrize("seconds", [30.01, 31, 36, 59.999, 60.001, 200])
def test_pieces_cover_everything_and_none_is_long_or_tiny(seconds: float):
    samples = noise(seconds)
    segments = find_segments(samples, RATE)
    assert segments[0].start == 0
    assert segments[-1].end == len(samples)
    for left, right in pairwise(segments):
        assert left.end == right.start
    for segment in segments:
        assert 2 * RATE <= segment.end - segment.start <= 30 * RATE
        assert segment.context_end - segment.context_start <= 32.1 * RATE


@pytest.mark.parametrize("seconds", [2.0, 3.3, 7.0])
@pytest.mark.parametrize("total", [9.0, 10.003, 33.33])
def test_every_frame_is_kept_exactly_once(seconds: float, total: float):
    samples = noise(total)
    grid = []
    for segment in find_segments(samples, RATE, seconds, hop=HOP):
        heard = segment.context_end - segment.context_start
        count = frames_of(heard)
        first = segment.context_start // HOP
        assert segment.context_start % HOP == 0
        kept = kept_frames(segment, count, HOP, FIELD)
        grid += list(range(first, first + count))[kept]
    assert grid == list(range(frames_of(len(samples))))


def test_silence_gives_long_pieces():
    segments = find_segments(np.zeros(RATE * 90, np.float32), RATE)
    assert segments[0].end > 29.5 * RATE


@pytest.mark.parametrize("seconds", [0, 1.9, -3, float("nan")])
def test_pieces_too_short(seconds: float):
    with pytest.raises(SettingError, match="too short"):
        find_segments(noise(1), RATE, seconds)
