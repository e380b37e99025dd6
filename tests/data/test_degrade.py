"""Degraded speech stays aligned with the clean clip, and is degraded."""

import numpy as np
import pytest

from s3router.data.degrade import coloured_noise, degrade, room_response

CLEAN = np.random.default_rng(1).standard_normal(16000).astype(np.float32)


def test_degraded_clips_are_aligned_and_differ():
    generator = np.random.default_rng(0)
    other = np.random.default_rng(2).standard_normal(5000).astype(np.float32)
    seen = set()
    for _ in range(30):
        out = degrade(CLEAN, other, generator)
        assert out.shape == CLEAN.shape
        assert out.dtype == np.float32
        assert np.isfinite(out).all()
        assert not np.array_equal(out, CLEAN)
        spectra = np.fft.rfft(out) * np.conj(np.fft.rfft(CLEAN))
        assert np.argmax(np.fft.irfft(spectra)) == 0  # no shift
        seen.add(out.tobytes())
    assert len(seen) == 30


def test_the_same_generator_gives_the_same():
    outs = [
        degrade(CLEAN, CLEAN[:100], np.random.default_rng(5)) for _ in range(2)
    ]
    np.testing.assert_array_equal(*outs)


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
def test_noise_has_its_colour(slope):
    noise = coloured_noise(1 << 16, slope, np.random.default_rng(0))
    amplitude = np.abs(np.fft.rfft(noise))
    low, high = amplitude[1000:1100].mean(), amplitude[10000:11000].mean()
    measured = np.log(low / high) / np.log(10500 / 1050)
    assert measured == pytest.approx(slope, abs=0.05)


def test_a_room_begins_with_the_direct_sound():
    room = room_response(np.random.default_rng(0), 16000)
    assert room[0] == np.abs(room).max() == 1.0
    half = room.size // 2
    assert np.abs(room[half:]).max() < 0.2 * np.abs(room[1:half]).max()
