"""Tiny random encoders of every family, made with transformers itself."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    AutoModel,
    Data2VecAudioConfig,
    HubertConfig,
    PretrainedConfig,
    PreTrainedModel,
    UniSpeechSatConfig,
    Wav2Vec2Config,
    WavLMConfig,
)

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
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
FAMILY_CONFIGS: dict[str, Callable[..., PretrainedConfig]] = {
    "wav2vec2-base": lambda **k: Wav2Vec2Config(**k),
    "wav2vec2-large": lambda **k: Wav2Vec2Config(**LARGE, **k),
    "mms": lambda **k: Wav2Vec2Config(**LARGE, adapter_attn_dim=4, **k),
    "hubert-base": lambda **k: HubertConfig(feat_proj_layer_norm=False, **k),
    "hubert-large": lambda **k: HubertConfig(**LARGE, **k),
    "hubert-tiny": lambda **k: HubertConfig(do_stable_layer_norm=True, **k),
    "hubert-batch-norm": lambda **k: HubertConfig(
        conv_pos_batch_norm=True, **k
    ),
    "wavlm-base": lambda **k: WavLMConfig(**k),
    "wavlm-large": lambda **k: WavLMConfig(**LARGE, **k),
    "data2vec": lambda **k: Data2VecAudioConfig(**k),
    "unispeech-sat-base": lambda **k: UniSpeechSatConfig(**k),
    "unispeech-sat-large": lambda **k: UniSpeechSatConfig(**LARGE, **k),
}


def random_model(
    family: str, seed: int = 0, **sizes: object
) -> PreTrainedModel:
    """Build a plain transformers model whose every weight is random."""
    torch.manual_seed(seed)
    config = FAMILY_CONFIGS[family](**{**SIZES, **sizes})
    model = AutoModel.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Norms and biases too: zeros and ones would hide a swapped name.
            if parameter.dim() == 1 or "original0" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.add_(0.3 * torch.rand_like(buffer))
    return model


def save_folder(
    model: PreTrainedModel, folder: Path, do_normalize: bool | None = True
) -> Path:
    """Save a folder as it comes from a hub."""
    model.save_pretrained(folder)
    if do_normalize is not None:
        settings = {"do_normalize": do_normalize, "sampling_rate": 16000}
        path = folder / "preprocessor_config.json"
        path.write_text(json.dumps(settings))
    return folder


def pad(clips: list[torch.Tensor], fill: float = 3.0) -> torch.Tensor:
    """Pad with loud rubbish: nothing may depend on it."""
    return torch.nn.utils.rnn.pad_sequence(
        clips, batch_first=True, padding_value=fill
    )
