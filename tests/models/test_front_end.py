"""Input normalisation and conv front end against plain computations."""

import numpy as np
import pytest
import torch
from model_factory import pad, random_model, save_folder
from torch import nn
from transformers import Wav2Vec2FeatureExtractor

from s3router.errors import DataError
from s3router.models.encoder import load_encoder
from s3router.models.front_end import (
    _group_norm_by_mask,
    group_norm_of_clips,
    normalize_waveforms,
    run_conv_layers,
)
from s3router.models.lengths import check_lengths, frames_of, shortest_clip


def test_normalisation_is_that_of_the_feature_extractor(clips):
    extractor = Wav2Vec2FeatureExtractor(
        do_normalize=True, return_attention_mask=True
    )
    expected = extractor(
        [clip.numpy() for clip in clips],
        sampling_rate=16000,
        padding=True,
        return_tensors="pt",
    ).input_values
    lengths = torch.tensor([len(clip) for clip in clips])
    ours = normalize_waveforms(pad(clips), lengths)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert all(
        (row[n:] == 0).all() for row, n in zip(ours, lengths, strict=True)
    )


def test_normalisation_without_lengths(clips):
    alone = normalize_waveforms(clips[0][None])
    assert alone.mean().abs() < 1e-6
    variance = clips[0].var(correction=0).item()
    # Not 1 for a quiet clip: the epsilon of the feature extractor shows.
    expected = variance / (variance + 1e-7)
    assert expected < 0.9999
    assert alone.square().mean().item() == pytest.approx(expected, abs=1e-6)
    lengths = torch.tensor([len(clips[0])])
    torch.testing.assert_close(
        normalize_waveforms(clips[0][None], lengths), alone
    )


def test_silence_and_offset_are_finite():
    for value in (0.0, 0.5):
        wav = torch.full((1, 800), value)
        assert normalize_waveforms(wav).abs().max() < 1e-2


@pytest.mark.parametrize("groups", [8, 2])
def test_group_norm_of_each_clip_is_bitwise_that_of_the_clip(groups):
    torch.manual_seed(0)
    norm = nn.GroupNorm(groups, 8)
    nn.init.normal_(norm.weight)
    hidden = torch.randn(3, 8, 40)
    frames = torch.tensor([40, 7, 23])
    normed = group_norm_of_clips(norm, hidden, frames)
    for row, count in enumerate(frames):
        alone = norm(hidden[row : row + 1, :, :count])
        assert torch.equal(normed[row : row + 1, :, :count], alone)
        assert not normed[row, :, count:].any()


def test_group_norm_against_numpy():
    torch.manual_seed(0)
    hidden = torch.randn(1, 4, 30)
    norm = nn.GroupNorm(4, 4)
    normed = group_norm_of_clips(norm, hidden, torch.tensor([11]))
    values = hidden[0, :, :11].numpy().astype(np.float64)
    centred = values - values.mean(axis=1, keepdims=True)
    expected = centred / np.sqrt(values.var(axis=1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(
        normed[0, :, :11].detach().numpy(), expected, atol=1e-5
    )


def test_plain_path_is_the_models_own(family, clips):
    extractor = random_model(family).feature_extractor
    with torch.no_grad():
        features, frames = run_conv_layers(extractor, clips[0][None])
        expected = extractor(clips[0][None]).transpose(1, 2)
    assert frames is None
    assert torch.equal(features, expected)


def test_frames_and_padding(family, clips, tmp_path):
    folder = save_folder(random_model(family), tmp_path)
    encoder = load_encoder(str(folder))
    lengths = torch.tensor([len(clip) for clip in clips])
    features, frames = encoder.front_end(pad(clips), lengths)
    assert torch.equal(frames, encoder.output_lengths(lengths))
    for row, count in enumerate(frames):
        alone, _ = encoder.front_end(clips[row][None])
        assert (features[row, count:] == 0).all()
        torch.testing.assert_close(
            features[row, :count], alone[0], atol=2e-5, rtol=1e-4
        )


def test_odd_convs():
    kernels, strides = (7, 4, 1), (3, 4, 1)
    shortest = shortest_clip(kernels, strides)
    wav = torch.zeros(1, 1, 400)
    for samples in (shortest - 1, shortest, shortest + 1, 211, 212, 400):
        frames = frames_of(torch.tensor([samples]), kernels, strides)
        hidden = wav[:, :, :samples]
        if samples < shortest:
            assert frames == 0
            continue
        for kernel, stride in zip(kernels, strides, strict=True):
            hidden = nn.functional.conv1d(
                hidden, torch.ones(1, 1, kernel), stride=stride
            )
        assert frames == hidden.shape[2]


def test_lengths_that_cannot_be_are_refused():
    check_lengths(torch.tensor([400, 800]), 800, 400)
    with pytest.raises(DataError, match="clip 0 .* 12 samples"):
        check_lengths(torch.tensor([12, 800]), 800, 400)
    with pytest.raises(DataError, match="801 samples.*only 800"):
        check_lengths(torch.tensor([400, 801]), 800, 400)


def test_group_norm_by_mask_is_that_of_each_clip():
    """What graphs have in place of the loop over clips."""
    torch.manual_seed(0)
    frames = torch.tensor([30, 7, 2])
    for norm in (nn.GroupNorm(6, 6), nn.GroupNorm(2, 6)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        hidden = 3 * torch.randn(3, 6, 30) + 5
        got = _group_norm_by_mask(norm, hidden, frames)
        expected = group_norm_of_clips(norm, hidden, frames)
        for row, count in enumerate(frames.tolist()):
            torch.testing.assert_close(
                got[row, :, :count], expected[row, :, :count], atol=1e-5, rtol=0
            )
