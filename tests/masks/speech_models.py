"""Tiny random encoders of every family, for the tests of masks."""

import torch
from torch import Tensor, nn
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioModel,
    HubertConfig,
    HubertModel,
    UniSpeechSatConfig,
    UniSpeechSatModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

FAMILIES = {
    "wav2vec2": (Wav2Vec2Model, Wav2Vec2Config),
    "hubert": (HubertModel, HubertConfig),
    "wavlm": (WavLMModel, WavLMConfig),
    "data2vec": (Data2VecAudioModel, Data2VecAudioConfig),
    "unispeech_sat": (UniSpeechSatModel, UniSpeechSatConfig),
}
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (8, 8),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
}


def make_encoder(family: str = "wav2vec2", **changes) -> nn.Module:
    """Return an encoder of 3 layers, 32 wide, 64 inside, 4 heads."""
    model, config = FAMILIES[family]
    torch.manual_seed(0)
    encoder = model(config(**{**SIZES, **changes}))
    # Larger than they start, so that a removed weight shows in the output.
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.2)
    return encoder.eval()


def make_audio(clips: int = 2, samples: int = 800) -> Tensor:
    """Return noise, always the same."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(clips, samples, generator=generator)


def output(encoder: nn.Module, audio: Tensor) -> Tensor:
    """Return the last hidden states."""
    return encoder(audio).last_hidden_state


def train(router, encoder: nn.Module, steps: int, lr: float = 0.02) -> list:
    """Take some steps on the scores; return the share flipped by each."""
    optimizer = torch.optim.Adam(router.scores().values(), lr=lr)
    audio, flips = make_audio(), []
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        (output(encoder, audio) - 1).square().mean().backward()
        optimizer.step()
        flips.append(router.refresh(step))
    return flips


def copies(masks: dict) -> dict:
    """Return the tensors as they are now."""
    return {name: mask.clone() for name, mask in masks.items()}


def same(one: dict, two: dict) -> bool:
    """Return whether names and bits are equal."""
    return one.keys() == two.keys() and all(
        torch.equal(one[name], two[name]) for name in one
    )
