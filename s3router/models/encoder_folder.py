"""Builds an encoder to pre-train, and writes the folder that others load."""

import copy
import os
from pathlib import Path

from safetensors.torch import save_file
from transformers import (
    HubertConfig,
    HubertModel,
    PretrainedConfig,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from s3router.errors import SettingError, near
from s3router.formats.files import atomic_file, write_json

FAMILIES = {
    "hubert": (HubertConfig, HubertModel),
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
}
#: What every configuration has, and what names the family.
_GENERAL = set(PretrainedConfig().to_dict()) | {"model_type"}


def build_encoder(
    config: PretrainedConfig, family: str, device: str = "cpu"
) -> PreTrainedModel:
    """Return an encoder with random weights.

    Arguments
    ---------
    config : transformers.PretrainedConfig
        Its shape; of HuBERT or wav2vec 2.0, whichever is wanted.
    family : str
        "hubert" or "wav2vec2".
    device : str
        Where it will train; it is not moved there.

    Returns
    -------
    transformers.PreTrainedModel
        Of the family's class.

    Raises
    ------
    SettingError
        If the shape is impossible, or the family has no such setting.
    """
    config_class, model_class = FAMILIES[family]
    names = type(config)().to_dict()
    for name in config.to_dict().keys() - names:
        # transformers keeps whatever it is given, and says nothing.
        raise SettingError(
            f"encoder_config: there is no {name}. {near(name, names)}"
        )
    if not isinstance(config, config_class):
        own = {
            name: value
            for name, value in config.to_dict().items()
            if name not in _GENERAL
        }
        known = config_class().to_dict()
        lacking = [n for n in own if n not in known and own[n] != names[n]]
        if lacking:
            raise SettingError(
                f"encoder_config: {family} has no {', '.join(lacking)}"
            )
        config = config_class(**{n: own[n] for n in own if n in known})
    try:
        encoder = model_class(config)
    except (ValueError, AssertionError, RuntimeError) as error:
        line = " ".join(str(error).split())
        raise SettingError(f"encoder_config: {line}") from error
    if not device.startswith("cuda"):
        # A step takes a fifth less: the fused one's backward is slow there.
        encoder.set_attn_implementation("eager")
    return encoder


def save_encoder(encoder: PreTrainedModel, folder: str | os.PathLike) -> None:
    """Write config.json, preprocessor_config.json and fp16 weights.

    Arguments
    ---------
    encoder : transformers.PreTrainedModel
        In any precision; it is not changed.
    folder : str or path
        Made if missing. Each file is replaced whole, the weights last.
    """
    folder = Path(folder)
    config = copy.deepcopy(encoder.config)
    config.architectures = [type(encoder).__name__]
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
