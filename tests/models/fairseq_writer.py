"""Writes a Hugging Face model as fairseq would have saved it.

Independent of the reader: it goes module by module through the model, as
fairseq's own classes are built, and knows no name table.
"""

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def put(state: dict[str, Tensor], name: str, module: nn.Module) -> None:
    """Store the weight and bias of one module."""
    state[f"{name}.weight"] = module.weight.detach().clone()
    if module.bias is not None:
        state[f"{name}.bias"] = module.bias.detach().clone()


def encoder_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the weights of the encoder by fairseq's names."""
    state = {"mask_emb": model.masked_spec_embed.detach().clone()}
    for i, layer in enumerate(model.feature_extractor.conv_layers):
        put(state, f"feature_extractor.conv_layers.{i}.0", layer.conv)
        norm = getattr(layer, "layer_norm", None)
        if isinstance(norm, nn.GroupNorm):
            put(state, f"feature_extractor.conv_layers.{i}.2", norm)
        elif norm is not None:
            put(state, f"feature_extractor.conv_layers.{i}.2.1", norm)
    put(state, "layer_norm", model.feature_projection.layer_norm)
    put(state, "post_extract_proj", model.feature_projection.projection)
    put_positions(state, model.encoder.pos_conv_embed)
    put(state, "encoder.layer_norm", model.encoder.layer_norm)
    for i, block in enumerate(model.encoder.layers):
        name = f"encoder.layers.{i}"
        for role in ("k", "v", "q", "out"):
            linear = getattr(block.attention, f"{role}_proj")
            put(state, f"{name}.self_attn.{role}_proj", linear)
        put(state, f"{name}.self_attn_layer_norm", block.layer_norm)
        put(state, f"{name}.fc1", block.feed_forward.intermediate_dense)
        put(state, f"{name}.fc2", block.feed_forward.output_dense)
        put(state, f"{name}.final_layer_norm", block.final_layer_norm)
    return state


def put_positions(state: dict[str, Tensor], embed: nn.Module) -> None:
    """Store the positional convs: weight norm, batch norm, or a stack."""
    if hasattr(embed, "layers"):
        for i, layer in enumerate(embed.layers):
            put(state, f"encoder.pos_conv.{i}.0", layer.conv)
        return
    norm = getattr(embed, "batch_norm", None)
    if norm is not None:
        for name, value in norm.state_dict().items():
            state[f"encoder.pos_conv.0.{name}"] = value.clone()
        put(state, "encoder.pos_conv.1", embed.conv)
        return
    originals = embed.conv.parametrizations.weight
    state["encoder.pos_conv.0.bias"] = embed.conv.bias.detach().clone()
    state["encoder.pos_conv.0.weight_g"] = originals.original0.detach().clone()
    state["encoder.pos_conv.0.weight_v"] = originals.original1.detach().clone()


def model_options(model: PreTrainedModel, name: str) -> dict[str, Any]:
    """Return the options of fairseq's model config."""
    config = model.config
    sizes = (config.conv_dim, config.conv_kernel, config.conv_stride)
    layers = list(zip(*sizes, strict=True))
    return {
        "_name": name,
        "extractor_mode": (
            "default"
            if getattr(config, "feat_extract_norm", "layer") == "group"
            else "layer_norm"
        ),
        "encoder_layers": config.num_hidden_layers,
        "encoder_embed_dim": config.hidden_size,
        "encoder_attention_heads": config.num_attention_heads,
        "activation_fn": "gelu",
        "layer_norm_first": getattr(config, "do_stable_layer_norm", False),
        # As people write it: an expression.
        "conv_feature_layers": f"[{layers[0]}] + {layers[1:5]} + "
        f"[{layers[5]}] * 1 + [{layers[6]}]",
        "conv_bias": config.conv_bias,
        "dropout": 0.1,
        "encoder_layerdrop": 0.05,
    }


def training_extras() -> dict[str, Any]:
    """Return what else a trainer saves."""
    return {
        "optimizer_history": [
            {
                "criterion_name": "Wav2vecCriterion",
                "optimizer_name": "FairseqAdam",
                "lr_scheduler_state": {"best": None},
                "num_updates": 400000,
            }
        ],
        "extra_state": {
            "train_iterator": {"epoch": 7, "iterations_in_epoch": 0},
            "previous_training_time": 1.5,
            "val_loss": 2.5,
        },
        "last_optimizer_state": None,
    }


@contextmanager
def fake_package(**classes: str) -> Iterator[dict[str, type]]:
    """Make importable classes, so that pickles name them; then forget them.

    Keys are class names, values their modules.
    """
    made, before = {}, dict(sys.modules)
    for name, module in classes.items():
        parts = module.split(".")
        for i in range(1, len(parts) + 1):
            path = ".".join(parts[:i])
            sys.modules[path] = sys.modules.get(path) or ModuleType(path)
        made[name] = type(name, (), {"__module__": module})
        setattr(sys.modules[module], name, made[name])
    try:
        yield made
    finally:
        for name in set(sys.modules) - set(before):
            del sys.modules[name]


def omega(value: Any, classes: dict[str, type]) -> Any:
    """Wrap plain settings as OmegaConf pickles them."""
    if isinstance(value, dict):
        node = classes["DictConfig"]()
        content = {k: omega(v, classes) for k, v in value.items()}
    else:
        node = classes["AnyNode"]()
        content = None
    metadata = classes["ContainerMetadata"]()
    metadata.__dict__.update(ref_type=Any, object_type=dict, optional=True)
    node.__dict__.update(_metadata=metadata, _parent=None)
    if content is None:
        node.__dict__["_val"] = value
    else:
        node.__dict__["_content"] = content
    return node


def save(path: Path, legacy: bool = False, **content: Any) -> Path:
    """Save a checkpoint in torch's format of today or before 1.6."""
    torch.save(
        {**training_extras(), **content},
        path,
        _use_new_zipfile_serialization=not legacy,
    )
    return path


def namespace(options: dict[str, Any]) -> Namespace:
    """Return options as the older checkpoints hold them."""
    options = dict(options)
    return Namespace(arch=options.pop("_name"), **options)
