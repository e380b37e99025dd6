"""The architecture of a fairseq checkpoint, from its tensors and settings.

Whatever the shapes tell is read from the shapes: it cannot be wrong. Only
strides, heads, the place of the norms and the activation come from the
settings; where a file has none, from what all released models have in common.
"""

import ast
from typing import Any

from torch import Tensor
from transformers import (
    Data2VecAudioConfig,
    HubertConfig,
    PretrainedConfig,
    Wav2Vec2Config,
)

from s3router.errors import FormatError
from s3router.models.fairseq_names import has_batch_norm, has_stacked_positions

SAMPLE_RATE = 16000
# The conv front end of all released models of these families.
KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)
# Heads by width: base, large (XLSR, XLS-R 0.3B), 1B and HuBERT X-Large, 2B.
HEADS = {768: 12, 1024: 16, 1280: 16, 1920: 16}


def model_settings(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the encoder itself.

    Arguments
    ---------
    checkpoint : dict
        With plain "cfg" or "args", as far as the file has them. A fine-tuned
        checkpoint keeps the encoder's settings in `w2v_args`.

    Returns
    -------
    dict
        fairseq's options for the encoder; empty if the file has none.
    """
    settings = checkpoint.get("cfg") or checkpoint.get("args") or {}
    settings = settings.get("model") or settings
    inner = settings.get("w2v_args")
    if isinstance(inner, dict):
        settings = inner.get("model") or inner
    return settings if isinstance(settings, dict) else {}


def task_settings(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the task: `normalize` and `sample_rate`.

    Arguments
    ---------
    checkpoint : dict
        With plain "cfg" or "args", as far as the file has them.

    Returns
    -------
    dict
        fairseq's options for the task; empty if the file has none.
    """
    settings = checkpoint.get("cfg") or {}
    task = settings.get("task") or checkpoint.get("args") or {}
    return task if isinstance(task, dict) else {}


def build_config(
    state: dict[str, Tensor], settings: dict[str, Any], where: str
) -> PretrainedConfig:
    """Describe a checkpoint as a Hugging Face config.

    Arguments
    ---------
    state : dict of str to torch.Tensor
        Unwrapped fairseq weights.
    settings : dict
        fairseq's options for the encoder, as far as known.
    where : str
        For errors.

    Returns
    -------
    transformers.PretrainedConfig
        Of wav2vec2, HuBERT or data2vec-audio.

    Raises
    ------
    FormatError
        If it is not such an encoder, or something that the tensors do not
        tell is not in the settings either.
    """
    try:
        values = _common(state, settings, where)
    except KeyError as error:
        raise FormatError(
            f"{where} is not a wav2vec2, HuBERT or data2vec checkpoint: it "
            f"has no weight {error}"
        ) from error
    norm_first = settings.get("layer_norm_first")
    if has_stacked_positions(state):
        if norm_first:
            raise FormatError(
                f"{where} is data2vec with layer_norm_first, which the "
                f"Hugging Face model of data2vec does not have"
            )
        depth = _count(state, "encoder.pos_conv.")
        return Data2VecAudioConfig(
            num_conv_pos_embeddings=depth,
            conv_pos_kernel_size=state["encoder.pos_conv.0.0.weight"].shape[2],
            num_conv_pos_embedding_groups=_groups(
                state["encoder.pos_conv.0.0.weight"]
            ),
            **values,
        )
    conv = _position_conv(state)
    layer_norms = "feature_extractor.conv_layers.1.2.1.weight" in state
    values |= {
        "feat_extract_norm": "layer" if layer_norms else "group",
        # Released models have both or neither.
        "do_stable_layer_norm": bool(
            layer_norms if norm_first is None else norm_first
        ),
        "num_conv_pos_embeddings": conv.shape[2],
        "num_conv_pos_embedding_groups": _groups(conv),
    }
    if _is_hubert(state, settings):
        return HubertConfig(conv_pos_batch_norm=has_batch_norm(state), **values)
    return Wav2Vec2Config(**values)


def conv_layers(description: str | None, where: str) -> list[list[int]] | None:
    """Read fairseq's description of the conv front end, without eval.

    Arguments
    ---------
    description : str or None
        As "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2".
    where : str
        For errors.

    Returns
    -------
    list of [channels, kernel, stride], or None
        None if there is no description.

    Example
    -------
    >>> conv_layers("[(8, 10, 5)] + [(8, 3, 2)] * 2", "here")
    [[8, 10, 5], [8, 3, 2], [8, 3, 2]]
    """
    if not isinstance(description, str):
        return None
    try:
        layers = _arithmetic(ast.parse(description, mode="eval").body)
        layers = [[int(number) for number in layer] for layer in layers]
        if not all(len(layer) == 3 for layer in layers):
            raise ValueError("not three numbers a layer")
    except (ValueError, SyntaxError, TypeError, RecursionError) as error:
        raise FormatError(
            f"{where}: cannot read conv_feature_layers {description[:80]!r}"
        ) from error
    return layers


def _arithmetic(node: ast.expr) -> Any:
    """Evaluate lists, tuples, whole numbers, + and * only."""
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_arithmetic(item) for item in node.elts]
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.BinOp):
        left, right = _arithmetic(node.left), _arithmetic(node.right)
        if isinstance(node.op, ast.Add):
            return left + right
        # Bounded: a description must not fill the memory.
        if isinstance(node.op, ast.Mult) and right < 100:
            return left * right
    raise ValueError("not a list of layers")


def _common(
    state: dict[str, Tensor], settings: dict[str, Any], where: str
) -> dict[str, Any]:
    """Return the config entries that all families share."""
    count = _count(state, "feature_extractor.conv_layers.")
    convs = [
        state[f"feature_extractor.conv_layers.{i}.0.weight"].shape
        for i in range(count)
    ]
    width = state["encoder.layer_norm.weight"].shape[0]
    activation = settings.get("activation_fn") or "gelu"
    if activation not in ("gelu", "relu"):
        raise FormatError(f"{where}: activation_fn {activation!r} is not known")
    return {
        "hidden_size": width,
        "num_hidden_layers": _count(state, "encoder.layers."),
        "intermediate_size": state["encoder.layers.0.fc1.weight"].shape[0],
        "num_attention_heads": _heads(width, settings, where),
        "hidden_act": activation,
        "conv_dim": [shape[0] for shape in convs],
        "conv_kernel": [shape[2] for shape in convs],
        "conv_stride": _strides(
            tuple(shape[2] for shape in convs), settings, where
        ),
        "conv_bias": "feature_extractor.conv_layers.0.0.bias" in state,
    }


def _strides(
    kernels: tuple[int, ...], settings: dict[str, Any], where: str
) -> list[int]:
    """Return the strides, which no tensor tells."""
    layers = conv_layers(settings.get("conv_feature_layers"), where)
    if layers is not None:
        if tuple(layer[1] for layer in layers) != kernels:
            raise FormatError(
                f"{where}: its settings describe other convs than its weights"
            )
        return [layer[2] for layer in layers]
    if kernels == KERNELS:
        return list(STRIDES)
    raise FormatError(
        f"{where} has convs of kernels {kernels} and does not say their "
        f"strides (conv_feature_layers)"
    )


def _heads(width: int, settings: dict[str, Any], where: str) -> int:
    """Return the number of attention heads, which no tensor tells."""
    heads = settings.get("encoder_attention_heads") or HEADS.get(width)
    if heads is None:
        raise FormatError(
            f"{where} does not say its number of attention heads "
            f"(encoder_attention_heads), and its width {width} is none of the "
            f"released models'"
        )
    return int(heads)


def _is_hubert(state: dict[str, Tensor], settings: dict[str, Any]) -> bool:
    """Return whether the settings call it HuBERT."""
    name = str(settings.get("_name") or settings.get("arch") or "")
    return name.startswith("hubert") or has_batch_norm(state)


def _position_conv(state: dict[str, Tensor]) -> Tensor:
    """Return the weight (D, D / groups, K) of the one positional conv."""
    for name in (
        "encoder.pos_conv.0.weight_v",
        "encoder.pos_conv.0.parametrizations.weight.original1",
        "encoder.pos_conv.1.weight",
    ):
        if name in state:
            return state[name]
    return state["encoder.pos_conv.0.weight"]


def _groups(weight: Tensor) -> int:
    """Return the groups of a conv whose input is as wide as its output."""
    return weight.shape[0] // weight.shape[1]


def _count(state: dict[str, Tensor], prefix: str) -> int:
    """Return how many numbered modules there are."""
    numbers = {
        int(name.removeprefix(prefix).split(".")[0])
        for name in state
        if name.startswith(prefix)
    }
    if not numbers:
        raise KeyError(prefix + "0")
    return max(numbers) + 1
