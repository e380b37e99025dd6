"""Smaller models: fewer weights, the logits of the masked one."""

import copy

import numpy as np
import pytest
import torch
from structured import make_structured
from subnetworks import FAMILIES, make_encoder

from s3router.export.compact import compact
from s3router.export.cuts import find_cuts
from s3router.export.fold import FoldedModel, fold
from s3router.formats.subnetwork import Subnetwork
from s3router.models.encoder import load_encoder
from s3router.models.families import norm_of_front_end

FRONT_END = [8, 7, 5, 16, 3, 9]
# Kept heads of 4, channels of 64.
SHAPES = {
    "half": ([2, 2], [32, 32]),
    "odd": ([3, 1], [33, 17]),
    "no heads below": ([0, 2], [64, 5]),
    "no heads above": ([3, 0], [0, 64]),
    "nothing": ([0, 0], [0, 0]),
}


def two_models(tmp_path, family, heads, channels, front_end=(), extra=0.0):
    """Return the masked model, the smaller one, and the cuts."""
    encoder = make_encoder(tmp_path / "encoder", family)
    path = make_structured(
        tmp_path / "s", encoder, "xx", heads, channels, front_end, extra=extra
    )
    subnetwork = Subnetwork.load(path)
    masked = fold(load_encoder(str(encoder)), subnetwork)
    cuts = find_cuts(masked.encoder.model, subnetwork.masks)
    return masked, compact(copy.deepcopy(masked), cuts), cuts


def size(model: FoldedModel) -> int:
    return sum(p.numel() for p in model.parameters())


def check_same(masked: FoldedModel, small: FoldedModel) -> None:
    """Compare logits, alone and in padded batches."""
    wavs = torch.randn(2, 4321)
    with torch.no_grad():
        expected = masked(wavs)
        assert expected.std() > 0.1
        assert (small(wavs) - expected).abs().max() < 1e-5
    clips = [wavs[0], wavs[1, :2000]]
    for one, two in zip(masked.padded(clips), small.padded(clips), strict=True):
        assert (one - two).abs().max() < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_masked_model(tmp_path, family, shape):
    heads, channels = SHAPES[shape]
    masked, small, _ = two_models(tmp_path, family, heads, channels)
    check_same(masked, small)
    # A head is 8 rows of q, k, v and columns of out of width 32; a channel a
    # row and a column; biases are those of the rows.
    removed = sum((4 - n) * 8 * (4 * 32 + 3) for n in heads)
    removed += sum((64 - n) * (2 * 32 + 1) for n in channels)
    assert size(masked) - size(small) == removed


@pytest.mark.parametrize(
    "family", ["wav2vec2-base", "hubert-base", "wavlm-base", "unispeech-sat"]
)
def test_channels_of_the_front_end(tmp_path, family):
    masked, small, cuts = two_models(
        tmp_path, family, [4, 3], [64, 31], FRONT_END
    )
    assert norm_of_front_end(masked.encoder.model.config) == "group"
    check_same(masked, small)
    convs = small.encoder.model.feature_extractor.conv_layers
    widths = [layer.conv.weight.shape[0] for layer in convs]
    assert widths == [*FRONT_END, 16]
    assert convs[0].layer_norm.num_groups == FRONT_END[0]


def test_what_is_masked_besides_stays_masked(tmp_path):
    masked, small, _ = two_models(
        tmp_path, "wavlm-base", [2, 3], [20, 40], extra=0.3
    )
    check_same(masked, small)
    weight = small.encoder.model.encoder.layers[0].attention.q_proj.weight
    assert weight.shape == (16, 32)
    assert 0.2 < (weight == 0).float().mean() < 0.4


@pytest.mark.parametrize("family", ["wav2vec2-base", "wavlm-base"])
def test_other_heads_are_other_logits(tmp_path, family):
    """What is compared above depends on what is cut."""
    masked, _, cuts = two_models(tmp_path, family, [3, 1], [33, 17])
    other = np.setdiff1d(np.arange(4), cuts.heads[1])[:1]
    cuts.heads[1] = other
    cut = "encoder.layers.1.attention.heads"
    cuts.indices[cut] = other[0] * 8 + np.arange(8)
    small = compact(copy.deepcopy(masked), cuts)
    with torch.no_grad():
        wavs = torch.randn(1, 4321)
        assert (small(wavs) - masked(wavs)).abs().max() > 1e-3
