"""The resampler, against torchaudio."""

import numpy as np
import pytest

from s3router.errors import DataError
from s3router.runtime.resample import resample

RATES = [8000, 11025, 22050, 24000, 32000, 44100, 48000, 96000]


@pytest.mark.parametrize("rate", RATES)
def test_equals_torchaudio(rate: int):
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchaudio.functional")
    rng = np.random.default_rng(rate)
    for length in (1, 7, rate // 10, rate // 4 + 1):
        signal = rng.standard_normal(length).astype(np.float32)
        # float64: in float32 its filters themselves are off by up to 1e-4.
        expected = functional.resample(
            torch.from_numpy(signal).double(), rate, 16000
        ).numpy()
        got = resample(signal, rate, 16000)
        assert got.dtype == np.float32
        assert got.shape == expected.shape
        np.testing.assert_allclose(got, expected, atol=3e-6)


def test_a_tone_stays_that_tone():
    time = np.arange(44100) / 44100
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    got = resample(tone, 44100, 16000)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    middle = slice(100, -100)  # the filter sees no signal beyond the ends
    assert np.abs(got - expected)[middle].max() < 2e-3


def test_what_cannot_be_kept_is_removed():
    time = np.arange(48000) / 48000
    tone = np.sin(2 * np.pi * 11000 * time).astype(np.float32)
    got = resample(tone, 48000, 16000)
    assert np.abs(got[200:-200]).max() < 0.01


def test_blocks_leave_no_seam():
    """The signal is longer than the block that is computed at once."""
    time = np.arange(48000 * 4) / 48000
    tone = np.sin(2 * np.pi * 300 * time).astype(np.float32)
    got = resample(tone, 48000, 16000)
    expected = np.sin(2 * np.pi * 300 * np.arange(64000) / 16000)
    assert np.abs(got - expected)[100:-100].max() < 2e-3


def test_same_rate_and_empty_input():
    signal = np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(resample(signal, 16000, 16000), signal)
    assert resample(signal[:0], 8000, 16000).size == 0


def test_coprime_rates_stay_cheap():
    assert resample(np.ones(44099, np.float32), 44099, 16000).size == 16000


@pytest.mark.parametrize("rate", [0, -1, 0.5])
def test_bad_rates(rate: float):
    with pytest.raises(DataError, match="sample rate"):
        resample(np.ones(4, np.float32), rate, 16000)
