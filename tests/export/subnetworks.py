"""Small subnetworks on small random encoders, saved as folders."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModel,
    Data2VecAudioConfig,
    HubertConfig,
    PretrainedConfig,
    UniSpeechSatConfig,
    Wav2Vec2Config,
    WavLMConfig,
)

from s3router.formats.subnetwork import Subnetwork
from s3router.models.encoder import load_encoder

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "conv_pos_kernel_size": 5,
}
LARGE = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
FAMILIES: dict[str, Callable[..., PretrainedConfig]] = {
    "wav2vec2-base": lambda: Wav2Vec2Config(**SIZES),
    "wav2vec2-large": lambda: Wav2Vec2Config(**SIZES, **LARGE),
    "hubert-base": lambda: HubertConfig(**SIZES),
    "hubert-large": lambda: HubertConfig(**SIZES, **LARGE),
    "wavlm-base": lambda: WavLMConfig(**SIZES),
    "wavlm-large": lambda: WavLMConfig(**SIZES, **LARGE),
    "data2vec": lambda: Data2VecAudioConfig(**SIZES),
    "unispeech-sat": lambda: UniSpeechSatConfig(**SIZES),
}

#: Whether all families and sizes are tried, which takes twice as long.
ALL_SHAPES = bool(os.environ.get("S3ROUTER_ALL_SHAPES"))
#: One of each kind: group norm, layer norm and pre-norm, gated relative
#: positions, other positional convolutions.
KINDS = (
    list(FAMILIES)
    if ALL_SHAPES
    else ["wav2vec2-base", "hubert-large", "wavlm-base", "data2vec"]
)


def make_encoder(
    folder: Path, family: str | PretrainedConfig, seed: int = 0
) -> Path:
    """Save a random encoder of a family, none of its weights 0 or 1."""
    torch.manual_seed(seed)
    config = FAMILIES[family]() if isinstance(family, str) else family
    model = AutoModel.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 or "original0" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    settings = {"do_normalize": True, "sampling_rate": 16000}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def make_subnetwork(
    folder: Path,
    encoder: Path,
    language: str = "xx",
    sparsity: float = 0.5,
    tuned: bool = False,
    seed: int = 0,
    **config: object,
) -> Path:
    """Save a random subnetwork of an encoder folder."""
    rng = np.random.default_rng(seed)
    loaded = load_encoder(str(encoder))
    masks, weights = {}, {}
    for name, weight in loaded.maskable_weights().items():
        scores = rng.random(weight.size)
        removed = np.argsort(scores)[: round(sparsity * weight.size)]
        mask = np.ones(weight.size, dtype=bool)
        mask[removed] = False
        masks[name] = mask.reshape(weight.shape)
    if tuned:
        masks = {}
        for name, value in loaded.model.named_parameters():
            if name != "masked_spec_embed":
                noise = 0.1 * rng.standard_normal(value.shape)
                weights[name] = value.detach().numpy() + noise.astype("f4")
    tokens = ["<blk>", "<unk>", "▁", *"abcdefghijklmnopqrst你好"]
    head = {
        "weight": rng.standard_normal((len(tokens), loaded.hidden_size)).astype(
            np.float32
        ),
        "bias": rng.standard_normal(len(tokens)).astype(np.float32),
    }
    return Subnetwork(
        {
            "method": "full" if tuned else "mask_tuning",
            "language": language,
            "task": "ctc",
            "encoder": str(encoder),
            "fingerprint": loaded.fingerprint(),
            "sample_rate": 16000,
            "normalize": True,
            "unit": "char",
            "targets": "all",
            **config,
        },
        masks,
        head,
        tokens,
        weights=weights,
    ).save(folder)
