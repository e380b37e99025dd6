"""Units against a few lines of numpy."""

import numpy as np
import pytest
import torch
from transformers import HubertConfig, HubertModel

from s3router.errors import DataError, SettingError
from s3router.models.frame_grid import FrameGrid
from s3router.models.units import (
    assign_units,
    fit_units,
    log_mel,
    mfcc,
    spectra_per_frame,
    unit_statistics,
)

WAVE = np.random.default_rng(0).standard_normal(4000).astype(np.float32)


def mel_filters(bins):
    """Return (257, bins) triangles that are evenly spaced in mel."""

    def to_mel(hertz):
        return 2595 * np.log10(1 + hertz / 700)

    edges = np.linspace(to_mel(20.0), to_mel(7600.0), bins + 2)
    edges = 700 * (10 ** (edges / 2595) - 1)
    hertz = np.linspace(0, 8000, 257)[:, None]
    up = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(up, down))


def numpy_log_mel(wave, bins=40):
    """Return (frames, bins), window by window."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    rows = []
    for start in range(0, wave.size - 399, 320):
        spectrum = np.fft.rfft(wave[start : start + 400] * window, 512)
        rows.append(np.abs(spectrum) ** 2 @ mel_filters(bins))
    return np.log(np.array(rows) + 1e-6)


def test_log_mel_is_that_of_numpy():
    ours = log_mel(torch.from_numpy(WAVE)).numpy()
    np.testing.assert_allclose(ours, numpy_log_mel(WAVE), atol=2e-3)


def test_mfcc_is_that_of_numpy():
    mel = numpy_log_mel(WAVE)
    order = np.arange(13)[:, None] * (np.arange(40) + 0.5) * np.pi / 40
    cosines = np.sqrt(2 / 40) * np.cos(order)
    cosines[0] /= np.sqrt(2)
    static = mel @ cosines.T

    def slope(rows):
        padded = np.concatenate([rows[:1]] * 2 + [rows] + [rows[-1:]] * 2)
        parts = [
            n * (padded[2 + n : len(rows) + 2 + n]) for n in (-2, -1, 1, 2)
        ]
        return sum(parts) / 10

    expected = np.concatenate(
        [static, slope(static), slope(slope(static))], axis=1
    )
    ours = mfcc(torch.from_numpy(WAVE)).numpy()
    np.testing.assert_allclose(ours, expected, atol=5e-3)


SLOW = FrameGrid(window=720, hop=640)


@pytest.mark.parametrize("samples", [720, 1359, 1360, 4000, 4100])
def test_at_40_ms_a_frame_has_the_two_spectra_in_it(samples):
    wave = torch.from_numpy(np.resize(WAVE, samples))
    mel = numpy_log_mel(wave.numpy(), 20)
    frames = (samples - 720) // 640 + 1
    expected = [np.concatenate(mel[2 * n : 2 * n + 2]) for n in range(frames)]
    ours = log_mel(wave, 20, SLOW).numpy()
    np.testing.assert_allclose(ours, np.array(expected), atol=2e-3)
    fast = mfcc(wave).numpy()
    slow = mfcc(wave, grid=SLOW).numpy()
    assert slow.shape == (frames, 78)
    np.testing.assert_array_equal(slow.reshape(-1, 39), fast[: 2 * frames])


WIDE = FrameGrid(window=1056, hop=640)


@pytest.mark.parametrize("samples", [1056, 1695, 1696, 4000, 16123])
@pytest.mark.parametrize("window", [1056, 1055, 700])
def test_spectra_lie_in_the_middle_of_a_window_of_another_length(
    samples, window
):
    grid = FrameGrid(window, 640)
    wave = np.resize(WAVE, samples)
    # Two spectra take 720 samples; what a shorter window lacks is silence.
    first = (window - 720) // 2
    padded = np.pad(wave, 200)[200 + first :]
    frames = grid.frames(samples)
    mel = numpy_log_mel(padded, 20)
    expected = [np.concatenate(mel[2 * n : 2 * n + 2]) for n in range(frames)]
    ours = log_mel(torch.from_numpy(wave), 20, grid).numpy()
    assert ours.shape == (frames, 40)
    np.testing.assert_allclose(ours, np.array(expected), atol=2e-3)
    assert mfcc(torch.from_numpy(wave), grid=grid).shape == (frames, 78)


def test_a_click_is_heard_in_the_middle_of_its_frame():
    """Both spectra of the frame hear it alike, and its neighbours less."""
    wave = np.zeros(8000, np.float32)
    wave[WIDE.middles(5)[4]] = 1.0
    energy = log_mel(torch.from_numpy(wave), 20, WIDE).numpy()
    assert energy.shape[0] == WIDE.frames(8000)
    two = energy.reshape(-1, 2, 20).mean(-1)
    assert two[4, 0] == pytest.approx(two[4, 1], abs=1e-3)
    assert two.sum(1).argmax() == 4


def test_batches_are_cut_to_the_frames_too():
    wave = torch.from_numpy(np.stack([WAVE, WAVE[::-1].copy()]))
    found = log_mel(wave, 20, WIDE)
    assert found.shape == (2, WIDE.frames(WAVE.size), 40)
    torch.testing.assert_close(found[1], log_mel(wave[1], 20, WIDE))


def test_frames_that_are_no_multiple_of_20_ms_are_refused():
    with pytest.raises(SettingError, match="10 ms; .* multiple of 20 ms"):
        spectra_per_frame(FrameGrid(window=240, hop=160))
    with pytest.raises(DataError, match="719 samples are too short"):
        log_mel(torch.zeros(719), grid=SLOW)


def test_frames_are_those_of_the_shipped_shape():
    config = HubertConfig(
        conv_dim=(4,) * 4,
        conv_stride=(40, 4, 2, 2),
        conv_kernel=(256, 5, 3, 2),
        num_feat_extract_layers=4,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    assert FrameGrid.of(config) == WIDE
    front_end = HubertModel(config).feature_extractor
    for samples in (1056, 1695, 1696, 16123):
        wave = torch.randn(1, samples)
        found = mfcc(wave[0], grid=WIDE)
        assert len(found) == front_end(wave).shape[-1] == WIDE.frames(samples)


@pytest.mark.parametrize("layers", [7, 8])
@pytest.mark.parametrize("samples", [720, 1359, 1360, 16000, 16123])
def test_frames_are_those_of_the_encoder(samples, layers):
    config = HubertConfig(
        conv_dim=(4,) * layers,
        conv_stride=(5, 2, 2, 2, 2, 2, 2, 2)[:layers],
        conv_kernel=(10, 3, 3, 3, 3, 2, 2, 2)[:layers],
        num_feat_extract_layers=layers,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    front_end = HubertModel(config).feature_extractor
    wave = torch.randn(1, samples)
    found = log_mel(wave, grid=FrameGrid.of(config)).shape[1]
    assert found == front_end(wave).shape[-1]


def test_too_short_is_said():
    with pytest.raises(DataError, match="399 samples are too short"):
        log_mel(torch.zeros(399))


def test_assignment_is_the_nearest_centre():
    generator = np.random.default_rng(1)
    frames = generator.standard_normal((50, 6)).astype("f4")
    centres = generator.standard_normal((9, 6)).astype("f4")
    far = [[np.sum((f - c) ** 2) for c in centres] for f in frames]
    assert (
        assign_units(frames, centres).tolist()
        == np.argmin(far, axis=1).tolist()
    )


def test_kmeans_finds_clusters_and_repeats():
    generator = np.random.default_rng(2)
    true = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    frames = true[np.arange(300) % 3] + generator.standard_normal((300, 2))
    centres = fit_units(frames, 3, seed=0)
    found = sorted(map(tuple, centres.round(0).tolist()))
    assert found == sorted(map(tuple, true.tolist()))
    np.testing.assert_array_equal(centres, fit_units(frames, 3, seed=0))


def test_more_units_than_frames_are_refused():
    with pytest.raises(DataError, match="5 frames cannot make 6 units"):
        fit_units(np.zeros((5, 2)), 6, seed=0)


def test_statistics_by_hand():
    numbers = unit_statistics(np.array([6, 2, 0]))
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert numbers == {
        "unigram_entropy": pytest.approx(entropy),
        "unigram_accuracy": 0.75,
        "used": 2,
    }
