"""The filter bank by Fourier: where its filters lie, how loud they are."""

import numpy as np
import pytest
import torch
from torch import nn

from s3router.errors import SettingError
from s3router.models.filterbank import (
    SHORTEST_KERNEL,
    check_channels,
    gabor_filters,
    start_as_filterbank,
)

POINTS = 1 << 16


def mel_spaced(count, lowest=60.0, highest=7600.0):
    """Return centres in Hz, evenly spaced in mel."""

    def to_mel(hertz):
        return 1127.0105 * np.log(1 + hertz / 700)

    mel = np.linspace(to_mel(lowest), to_mel(highest), count)
    return 700 * (np.exp(mel / 1127.0105) - 1)


@pytest.mark.parametrize(("count", "size"), [(160, 256), (100, 400)])
def test_each_filter_is_loudest_at_its_mel_spaced_centre(count, size):
    filters = gabor_filters(count, size).reshape(-1, 2, size)
    assert filters.dtype == np.float32
    # Cosine and sine together have no mirror image, which would pull.
    analytic = filters[:, 0] - 1j * filters[:, 1]
    spectra = np.abs(np.fft.fft(analytic, POINTS))
    peaks = np.abs(np.fft.fftfreq(POINTS, 1 / 16000))[spectra.argmax(1)]
    centres = mel_spaced(count // 2)
    spacing = np.gradient(centres)
    np.testing.assert_array_less(np.abs(peaks - centres), 0.1 * spacing + 1)


def test_energy_is_the_stated_factor():
    centres = mel_spaced(80)
    expected = np.sqrt(centres / centres.mean())
    energy = np.square(gabor_filters(160, 256)).sum(1).reshape(80, 2)
    np.testing.assert_allclose(energy[:, 0], expected, rtol=1e-4)
    np.testing.assert_allclose(energy[:, 1], expected, rtol=1e-4)


def test_cosine_and_sine_are_in_quadrature():
    pairs = gabor_filters(160, 256).reshape(80, 2, 256).astype(float)
    dots = np.einsum("bt,bt->b", pairs[:, 0], pairs[:, 1])
    np.testing.assert_allclose(dots, 0, atol=1e-6)
    # A tone in the middle of the bank is as loud at every phase.
    times = np.arange(256) / 16000
    loudness = []
    for phase in np.linspace(0, np.pi, 9):
        tone = np.sin(2 * np.pi * mel_spaced(80)[40] * times + phase)
        loudness.append(np.hypot(*(pairs[40] @ tone)))
    assert np.ptp(loudness) < 0.01 * np.mean(loudness)


def test_filters_overlap_their_neighbours_and_no_more():
    """A filter hears its neighbour's centre, not that of the tenth."""
    filters = gabor_filters(160, 400)[::2]
    hertz = np.fft.rfftfreq(POINTS, 1 / 16000)
    spectra = np.abs(np.fft.rfft(filters, POINTS))
    at = np.searchsorted(hertz, mel_spaced(80))
    for band in (45, 60, 69):
        level = spectra[band, at] / spectra[band].max()
        # Its width is 0.6 of the spacing.
        expected = np.exp(-0.5 / 0.6**2)
        assert level[band + 1] == pytest.approx(expected, abs=0.03)
        assert level[band + 10] < 0.01


@pytest.mark.parametrize("count", [3, 161, 2, 0])
def test_other_numbers_of_channels_are_refused(count):
    line = f"even number of channels, 4 or more, not {count}: .*conv_dim"
    for refused in (check_channels, lambda n: gabor_filters(n, 256)):
        with pytest.raises(SettingError, match=line):
            refused(count)
    if count:
        conv = nn.Conv1d(1, count, 256)
        before = conv.weight.clone()
        with pytest.raises(SettingError, match=line):
            start_as_filterbank(conv)
        assert conv.weight.equal(before)


def test_a_convolution_starts_as_the_bank():
    torch.manual_seed(0)
    for bias in (True, False):
        conv = nn.Conv1d(1, 32, SHORTEST_KERNEL, stride=10, bias=bias)
        start_as_filterbank(conv)
        np.testing.assert_array_equal(
            conv.weight[:, 0].detach().numpy(),
            gabor_filters(32, SHORTEST_KERNEL),
        )
        assert conv.weight.requires_grad
    conv = nn.Conv1d(1, 1000, 64)
    start_as_filterbank(conv)
    assert conv.bias.std().item() == pytest.approx(0.1, rel=0.1)
