"""LoRA: what it adds, what it saves, and where it cannot work."""

import math
import sys

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModel, HubertConfig, WavLMConfig

from s3router.errors import (
    MismatchError,
    MissingDependencyError,
    SettingError,
)
from s3router.masks.router import Router
from s3router.methods.lora import LoRA, equal_bytes_rank
from s3router.models.encoder import SSLEncoder, load_encoder

FAMILIES = {"hubert": HubertConfig, "wavlm": WavLMConfig}
ROLES = {
    "attention": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "feed_forward": ("intermediate_dense", "output_dense"),
}


def plain_model(family: str, **sizes) -> nn.Module:
    torch.manual_seed(1)
    config = FAMILIES[family](
        **{
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 56,
            "conv_dim": (16,) * 7,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            **sizes,
        }
    )
    return AutoModel.from_config(config).eval()


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    plain_model(request.param).save_pretrained(path)
    return path


def output(encoder: SSLEncoder) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    wavs = torch.randn(2, 4000, generator=generator)
    hidden, _ = encoder(wavs, torch.tensor([1.0, 0.7]))
    return hidden


def shaken(encoder: SSLEncoder, **settings) -> LoRA:
    """Return LoRA whose every factor is far from its start."""
    method = LoRA(**settings)
    method.prepare(encoder.model)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for factor in method.parameter_groups()["weights"]:
            factor.add_(0.3 * torch.randn(factor.shape, generator=generator))
    return method


def test_it_starts_at_the_encoder_itself(folder):
    encoder = load_encoder(str(folder))
    before = output(encoder)
    LoRA("all", lora_rank=2).prepare(encoder.model)
    torch.testing.assert_close(output(encoder), before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("role", [r for part in ROLES.values() for r in part])
def test_every_adapter_acts(folder, role):
    encoder = load_encoder(str(folder))
    before = output(encoder)
    shaken(encoder, targets=[f"*.0.*.{role}"], lora_rank=2)
    assert not torch.allclose(output(encoder), before, atol=1e-4)


def test_merged_weights_do_what_the_adapters_do(folder):
    encoder = load_encoder(str(folder))
    method = shaken(encoder, targets="all", lora_rank=3, lora_alpha=12.0)
    expected, before = output(encoder), output(load_encoder(str(folder)))
    assert not torch.allclose(expected, before, atol=1e-2)

    plain = load_encoder(str(folder))
    own = dict(plain.model.named_parameters())
    merged = method.weights()
    assert set(merged) <= set(own)
    assert len(merged) == 2 * 6
    with torch.no_grad():
        for name, weight in merged.items():
            own[name].copy_(weight)
    torch.testing.assert_close(output(plain), expected, rtol=0, atol=1e-5)


def test_merged_weights_are_the_formula(folder):
    encoder = load_encoder(str(folder))
    name = "encoder.layers.1.feed_forward.output_dense"
    weight = encoder.maskable_weights()[name].astype(np.float64)
    method = shaken(encoder, targets="all", lora_rank=3, lora_alpha=12.0)
    a, b = (
        method.state_dict()[f"{name}.{factor}"].double().numpy()
        for factor in ("lora_A", "lora_B")
    )
    assert a.shape == (3, 56)
    np.testing.assert_allclose(
        method.weights()[f"{name}.weight"].numpy(),
        weight + 12.0 / 3 * b @ a,
        atol=1e-5,
    )


def test_only_the_factors_are_kept():
    encoder = plain_model("hubert")
    method = LoRA("attention", lora_rank=2)
    method.prepare(encoder)
    state = method.state_dict()
    assert len(state) == 2 * 4 * 2
    assert {name.rpartition(".")[2] for name in state} == {"lora_A", "lora_B"}
    # 8 layers of 32 x 32, two factors of rank 2 in fp16.
    assert method.describe()["adapter_bytes"] == 8 * 2 * (2 * 32) * 2


@pytest.mark.parametrize("targets", ["all", "attention", "feed_forward"])
@pytest.mark.parametrize("sizes", [{}, {"hidden_size": 64}])
def test_rank_of_equal_bytes(targets, sizes):
    encoder = plain_model("hubert", **sizes)
    d, f = sizes.get("hidden_size", 32), 56
    shapes = {"attention": 4 * [(d, d)], "feed_forward": [(f, d), (d, f)]}
    shapes["all"] = shapes["attention"] + shapes["feed_forward"]
    mask_bits = 2 * sum(o * i for o, i in shapes[targets])
    rank = equal_bytes_rank(encoder, targets)

    def bits(rank: int) -> int:
        return 16 * 2 * sum(rank * (o + i) for o, i in shapes[targets])

    assert bits(rank) >= mask_bits > bits(rank - 1)
    method = LoRA(targets)
    method.prepare(encoder)
    assert method.describe()["lora_rank"] == rank
    assert method.stored_bytes() == bits(rank) // 8
    assert method.stored_bytes() >= math.ceil(mask_bits / 8)


def test_seed_decides_the_start_and_nothing_else_does():
    starts = []
    for noise, seed in ((0, 7), (1, 7), (1, 8)):
        encoder = plain_model("hubert")
        torch.manual_seed(noise)
        method = LoRA("attention", lora_rank=2, seed=seed)
        method.prepare(encoder)
        drawn = torch.rand(1)
        torch.manual_seed(noise)
        assert torch.equal(drawn, torch.rand(1)), "the generator was moved"
        starts.append(
            torch.cat([p.flatten() for p in method.state_dict().values()])
        )
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[1], starts[2])


def test_wavlm_of_transformers_is_refused():
    encoder = plain_model("wavlm")
    with pytest.raises(SettingError, match="would do nothing; load the enc"):
        LoRA("all", lora_rank=1).prepare(encoder)
    assert all(p.requires_grad for p in encoder.parameters())
    LoRA("feed_forward", lora_rank=1).prepare(encoder)


def test_fused_torch_layers_are_refused():
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    with pytest.raises(SettingError, match="might do nothing"):
        LoRA("all", lora_rank=1).prepare(encoder)


def test_layers_in_use_are_refused():
    encoder = plain_model("hubert")
    Router(encoder, "attention", 0.5)
    with pytest.raises(SettingError, match="plain linear layers only"):
        LoRA("all", lora_rank=1).prepare(encoder)


@pytest.mark.parametrize(
    "settings",
    [{"lora_rank": 0}, {"lora_rank": -2}, {"lora_alpha": 0.0}],
)
def test_settings_that_cannot_work(settings):
    with pytest.raises(SettingError, match="must be"):
        LoRA("all", **settings)


def test_another_ranks_checkpoint_is_refused():
    methods = [LoRA("all", lora_rank=rank) for rank in (2, 3)]
    for method in methods:
        method.prepare(plain_model("hubert"))
    with pytest.raises(MismatchError, match="lora_[AB] is missing or of"):
        methods[0].load_state_dict(methods[1].state_dict())


def test_without_peft_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    encoder = plain_model("hubert")
    with pytest.raises(MissingDependencyError, match=r"s3router\[lora\]"):
        LoRA("all").prepare(encoder)
    assert all(p.requires_grad for p in encoder.parameters())
