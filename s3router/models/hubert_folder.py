"""Writes a HuBERT encoder as a folder that plain transformers loads."""

import copy
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import HubertModel

from s3router.formats.files import atomic_file, write_json


def bfloat16_is_fast() -> bool:
    """Tell whether this device multiplies bfloat16 in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    capability = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(capability and capability())


def save_hubert(encoder: HubertModel, folder: str | os.PathLike) -> None:
    """Write config.json, preprocessor_config.json and fp16 weights.

    Arguments
    ---------
    encoder : HubertModel
        In any precision; it is not changed.
    folder : str or path
        Made if missing. Each file is replaced whole, the weights last.
    """
    folder = Path(folder)
    config = copy.deepcopy(encoder.config)
    config.architectures = ["HubertModel"]
    values = config.to_dict()
    # The weights are fp16 to be small; they are to be used as fp32.
    values["dtype"] = "float32"
    # With these above 0, plain transformers would hide frames in training.
    values.update(mask_time_prob=0.0, mask_feature_prob=0.0, layerdrop=0.0)
    write_json(folder / "config.json", values)
    write_json(
        folder / "preprocessor_config.json",
        {
            "do_normalize": True,
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": True,
            "sampling_rate": 16000,
        },
    )
    weights = {
        name: tensor.detach().cpu().half().contiguous().clone()
        for name, tensor in encoder.state_dict().items()
    }
    with atomic_file(folder / "model.safetensors") as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
        # Others than its writer read an encoder too.
        temporary.chmod(0o644)
