"""Faster copies: pitch, length, and which frame lands where."""

import numpy as np
import pytest

from s3router.data.degrade import SPEEDS, sped_up_lengths, speed_up
from s3router.models.frame_grid import FrameGrid

SLOW = FrameGrid(window=720, hop=640)


def tone(hertz, count=16000):
    time = np.arange(count) / 16000
    return np.sin(2 * np.pi * hertz * time).astype(np.float32)


@pytest.mark.parametrize("speed", SPEEDS)
def test_pitch_rises_and_length_falls_by_the_speed(speed):
    faster = speed_up(tone(1000), speed)
    assert faster.dtype == np.float32
    assert len(faster) == pytest.approx(16000 / speed, abs=1)
    lengths = sped_up_lengths(np.array([16000]), np.array([speed]))
    assert lengths.tolist() == [len(faster)]
    spectrum = np.abs(np.fft.rfft(faster[1000:-1000]))
    hertz = spectrum.argmax() * 16000 / (len(faster) - 2000)
    assert hertz == pytest.approx(1000 * speed, rel=0.01)


def test_lengths_are_those_of_every_clip():
    generator = np.random.default_rng(0)
    lengths = generator.integers(1, 3000, 40)
    speeds = generator.choice(SPEEDS, 40)
    expected = [
        len(speed_up(np.zeros(n, np.float32), s))
        for n, s in zip(lengths, speeds, strict=True)
    ]
    assert sped_up_lengths(lengths, speeds).tolist() == expected


@pytest.mark.parametrize("grid", [FrameGrid(400, 320), SLOW])
@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("at", [4321, 12000, 27777])
def test_a_click_lands_in_the_frame_that_shows_it(grid, speed, at):
    """The copy's frame that is centred on the click maps to the clip's own."""
    clip = np.zeros(32000, np.float32)
    clip[at - 40 : at + 40] = tone(2000, 80)
    copy = speed_up(clip, speed)
    count, limit = (grid.frames(len(x)) for x in (copy, clip))
    heard = np.square(copy).cumsum()
    centre = int(np.searchsorted(heard, heard[-1] / 2))
    in_copy = np.abs(grid.middles(count) - centre).argmin()
    in_clip = np.abs(grid.middles(limit) - at).argmin()
    shown = grid.sped_up(count, speed, limit)[in_copy]
    # Both are nearest to the click, so half a hop of each may lie between.
    assert abs(int(shown) - int(in_clip)) <= 1
    assert abs(grid.middles(limit)[shown] - at) <= (1 + speed) * grid.hop / 2


@pytest.mark.parametrize("speed", SPEEDS)
def test_frames_shown_are_right_on_average(speed):
    """No drift: the error of the mapping stays within half a frame."""
    limit = SLOW.frames(30 * 16000)
    count = SLOW.frames(int(30 * 16000 / speed))
    shown = SLOW.sped_up(count, speed, limit)
    heard = SLOW.middles(count) * speed
    error = SLOW.middles(limit)[shown] - heard
    assert np.abs(error).max() <= SLOW.hop / 2 + 1
    assert abs(error.mean()) < 0.05 * SLOW.hop
