"""A tiny encoder for the tests of methods, with a loss, and subnetworks."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from s3router.formats.fingerprint import fingerprint
from s3router.masks.targets import resolve_targets
from s3router.methods.base import Method
from s3router.methods.subnetwork import collect_subnetwork


def make_encoder(seed: int = 0) -> Wav2Vec2Model:
    """Return an encoder of 2 layers, 32 wide, 48 inside, 4 heads."""
    torch.manual_seed(seed)
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=(16, 16),
        conv_stride=(5, 4),
        conv_kernel=(10, 4),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        layerdrop=0.0,
        mask_time_prob=0.0,
    )
    return Wav2Vec2Model(config).eval()


def output(encoder: nn.Module) -> torch.Tensor:
    """Return what an encoder makes of some noise, always the same."""
    wav = torch.randn(2, 800, generator=torch.Generator().manual_seed(5))
    return encoder(wav).last_hidden_state


def loss(encoder: nn.Module) -> torch.Tensor:
    """Return a number to make smaller."""
    # Behind a layer norm, the mean over all channels is always 1.
    return output(encoder)[..., ::3].square().mean()


def train(
    encoder: nn.Module, method: Method, steps: int = 3, resumed: bool = False
) -> None:
    """Train as a Brain does, with new optimizers."""
    groups = method.parameter_groups()
    method.plan(steps)
    if not resumed:
        method.before_fit(lambda: iter([None]), lambda _: loss(encoder))
    # Fused, as the recipes have it: it writes without telling torch.
    optimizers = [
        torch.optim.Adam(g, lr=1e-2, fused=True) for g in groups.values()
    ]
    for step in range(1, steps + 1):
        if groups:
            loss(encoder).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        method.after_step(step)


def save(
    method: Method,
    folder: Path,
    seed: int = 0,
    encoder: nn.Module | None = None,
) -> Path:
    """Save what a method found for an encoder, or for that of a seed."""
    encoder = encoder or make_encoder(seed)
    weights = {
        name: encoder.get_submodule(name).weight.detach().numpy()
        for name in resolve_targets(encoder, "all")
    }
    return collect_subnetwork(
        method,
        {"weight": np.zeros((3, 32), np.float32)},
        ["<blk>", "<unk>", "a"],
        {
            "language": "xx",
            "task": "ctc",
            "encoder": "test",
            "fingerprint": fingerprint(weights),
            "sample_rate": 16000,
            "normalize": True,
            "unit": "char",
            "head": {"type": "ctc"},
        },
    ).save(folder)
