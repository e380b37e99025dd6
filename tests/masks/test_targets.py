"""Which linear layers are maskable, in every family, and the errors."""

import pytest
import torch
from speech_models import FAMILIES, make_encoder
from torch import nn

from s3router.errors import SettingError
from s3router.masks.router import Router
from s3router.masks.targets import find_blocks, resolve_targets


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_of_every_family(family):
    encoder = make_encoder(family)
    blocks = find_blocks(encoder)
    assert [block.index for block in blocks] == [0, 1, 2]
    assert [block.prefix for block in blocks] == [
        f"encoder.layers.{i}" for i in range(3)
    ]
    for block in blocks:
        assert block.num_heads == 4
        assert list(block.attention) == ["q", "k", "v", "out"]
        assert list(block.feed_forward) == ["fc1", "fc2"]
        shapes = [
            tuple(encoder.get_submodule(name).weight.shape)
            for name in block.linears("all")
        ]
        assert shapes == [(32, 32)] * 4 + [(64, 32), (32, 64)]


@pytest.mark.parametrize("stable", [False, True])
def test_both_norm_orders(stable):
    encoder = make_encoder(
        do_stable_layer_norm=stable, feat_extract_norm="layer"
    )
    assert len(find_blocks(encoder)) == 3


def test_masks_do_not_hide_blocks():
    encoder = make_encoder()
    before = find_blocks(encoder)
    Router(encoder, "all", 0.1)
    assert find_blocks(encoder) == before


@pytest.mark.parametrize(
    "targets, count",
    [
        ("feed_forward", 6),
        ("attention", 12),
        ("all", 18),
        (["feed_forward", "attention"], 18),
        ("encoder.layers.[01].*", 12),
        ("*.q_proj", 3),
        (["*.q_proj", "*.layers.0.*"], 8),
        ("feature_projection.projection", 1),
    ],
)
def test_targets(targets, count):
    encoder = make_encoder()
    names = resolve_targets(encoder, targets)
    assert len(names) == len(set(names)) == count
    order = [name for name, _ in encoder.named_modules()]
    assert names == sorted(names, key=order.index)


def test_patterns_stay_inside_blocks():
    # WavLM has a small linear layer for positions in its attention, and all
    # families have one before the blocks: neither is a maskable weight.
    encoder = make_encoder("wavlm")
    assert len(resolve_targets(encoder, "*")) == 18
    assert not [n for n in resolve_targets(encoder, "*") if "gru" in n]


@pytest.mark.parametrize(
    "targets, hint",
    [
        ("feedforward", "did you mean 'feed_forward'"),
        ("encoder.layers.0.attention.q_prj", "q_proj"),
        ("encoder.layers.9.*", "encoder.layers.0"),
        (["all", "nothing"], "'nothing' matches no linear layer"),
        ("pos_conv_embed.conv", "matches no linear layer"),
        ([], "not a name or a list"),
        (3, "not a name or a list"),
    ],
)
def test_targets_that_match_nothing(targets, hint):
    encoder = make_encoder()
    if targets == 3:
        targets = [3]
    with pytest.raises(SettingError, match="targets: ") as caught:
        resolve_targets(encoder, targets)
    assert hint in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("targets", [3, None, True, {"all": 0.1}])
def test_targets_that_are_no_names(targets):
    with pytest.raises(SettingError) as caught:
        resolve_targets(make_encoder(), targets)
    assert f"targets: {targets!r} is not a name" in str(caught.value)


def test_torch_layers_have_a_feed_forward_part_only():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    assert resolve_targets(encoder, "all") == [
        f"layers.{i}.linear{j}" for i in (0, 1) for j in (1, 2)
    ]
    with pytest.raises(SettingError, match="no transformer block"):
        resolve_targets(encoder, "attention")


def test_torch_fast_path_uses_the_mask():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    audio = torch.randn(1, 5, 8)
    router = Router(encoder, "feed_forward", 0.5)
    trained = encoder.train()(audio)
    with torch.no_grad():
        fast = encoder.eval()(audio)
    torch.testing.assert_close(trained, fast)
    router.remove()
    assert not torch.allclose(encoder(audio), trained)


def test_models_without_known_blocks_take_patterns():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    assert resolve_targets(model, "*") == ["0", "2"]
    with pytest.raises(SettingError, match="known kind"):
        resolve_targets(model, "all")
    with pytest.raises(SettingError, match="none at all"):
        resolve_targets(nn.Sequential(nn.ReLU()), "*")
