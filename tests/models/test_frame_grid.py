"""The grid against the convolutions themselves, sample by sample."""

import numpy as np
import pytest
import torch
from transformers import HubertConfig, HubertModel

from s3router.models.frame_grid import FrameGrid


def front_end(layers):
    """Return the conv stack of a random HuBERT, and its configuration."""
    torch.manual_seed(0)
    config = HubertConfig(
        conv_dim=(6,) * layers,
        conv_stride=(5, 2, 2, 2, 2, 2, 2, 2)[:layers],
        conv_kernel=(10, 3, 3, 3, 3, 2, 2, 2)[:layers],
        num_feat_extract_layers=layers,
        # A group norm would let every sample reach every frame.
        feat_extract_norm="layer",
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    return HubertModel(config).feature_extractor.double().eval(), config


@pytest.fixture(scope="module", params=[(7, 400, 320), (8, 720, 640)])
def stack(request):
    layers, window, hop = request.param
    module, config = front_end(layers)
    return module, FrameGrid.of(config), window, hop


def test_window_and_hop_are_known(stack):
    _, grid, window, hop = stack
    assert grid == (window, hop)
    assert grid.frames_per_second == 16000 / hop


@pytest.mark.parametrize("extra", [-1, 0, 1, 319, 320, 639, 640, 5000])
def test_frames_are_those_of_the_convolutions(stack, extra):
    module, grid, window, _ = stack
    samples = window + extra
    expected = 0
    if extra >= 0:
        wave = torch.randn(1, samples, dtype=torch.float64)
        expected = module(wave).shape[-1]
    assert grid.frames(samples) == expected


def test_a_frame_sees_its_window_and_nothing_else(stack):
    """The gradient of frame t is on the samples hop * t to hop * t + window."""
    module, grid, window, hop = stack
    wave = torch.randn(1, window + 5 * hop, dtype=torch.float64)
    wave.requires_grad_(True)
    out = module(wave)
    for frame in range(out.shape[-1]):
        (slope,) = torch.autograd.grad(
            out[0, :, frame].square().sum(), wave, retain_graph=True
        )
        seen = torch.nonzero(slope[0])[:, 0]
        assert seen.min() >= hop * frame
        assert seen.max() < hop * frame + window
        # Its ends are seen too, but for a weight that happens to be zero.
        assert seen.min() <= hop * frame + 2
        assert seen.max() >= hop * frame + window - 3
        middle = grid.middles(frame + 1)[-1]
        assert middle == pytest.approx((seen.min() + seen.max()) / 2, abs=3)


@pytest.mark.parametrize("speed", [25 / 30, 25 / 28, 1.0, 25 / 22, 25 / 21])
def test_a_faster_copy_shows_the_frame_with_the_nearest_middle(stack, speed):
    _, grid, _, _ = stack
    limit = 60
    count = int(limit / speed)
    heard = grid.middles(count) * speed  # sample of the clip
    middles = grid.middles(limit)
    nearest = np.abs(middles[None] - heard[:, None]).argmin(1)
    shown = grid.sped_up(count, speed, limit)
    # Where two are equally near, either will do.
    gap = np.abs(middles[shown] - heard) - np.abs(middles[nearest] - heard)
    assert np.abs(gap).max() == 0
    assert shown.min() >= 0 and shown.max() < limit
    if speed == 1.0:
        assert shown.tolist() == list(range(limit))


def test_what_lies_beyond_the_clip_is_its_last_frame():
    assert FrameGrid(400, 320).sped_up(4, 2.0, 4).tolist() == [1, 3, 3, 3]
