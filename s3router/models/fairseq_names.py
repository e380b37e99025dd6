"""From fairseq's weight names to those of the Hugging Face models.

The rules follow from the two module trees. Most are the same for wav2vec2,
XLSR, XLS-R, HuBERT and data2vec; they differ in the positional convs.
"""

import re

import torch
from torch import Tensor

from s3router.errors import FormatError

# What a fine-tuned checkpoint puts before the encoder's names: with a CTC
# head, with a decoder, or saved from inside.
WRAPPERS = ("w2v_encoder.w2v_model.", "encoder.w2v_model.", "w2v_model.")

# Parts of the pre-training loss and of fine-tuned heads; not the encoder.
LEFT_OUT = (
    "quantizer",
    "input_quantizer",
    "project_q",
    "project_inp",
    "project_hid",
    "final_proj",
    "target_glu",
    "label_embs_concat",
    "regression_head",
    "proj",
    "_ema",
    "ema",
)

_RULES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Sequential(conv, dropout, norm, GELU): the norm is entry 2, and for
        # LayerNorm entry 1 between two transpositions.
        (
            r"feature_extractor\.conv_layers\.(\d+)\.0\.(weight|bias)",
            r"feature_extractor.conv_layers.\1.conv.\2",
        ),
        (
            r"feature_extractor\.conv_layers\.(\d+)\.2\.(?:1\.)?(weight|bias)",
            r"feature_extractor.conv_layers.\1.layer_norm.\2",
        ),
        (r"layer_norm\.(weight|bias)", r"feature_projection.layer_norm.\1"),
        (
            r"post_extract_proj\.(weight|bias)",
            r"feature_projection.projection.\1",
        ),
        (r"mask_emb", r"masked_spec_embed"),
        (
            r"encoder\.pos_conv\.0\.(bias|weight|weight_g|weight_v|"
            r"parametrizations\.weight\.original[01])",
            r"encoder.pos_conv_embed.conv.\1",
        ),
        # data2vec: a stack of Sequential(conv, pad, transpose, norm, ...).
        (
            r"encoder\.pos_conv\.(\d+)\.0\.(weight|bias)",
            r"encoder.pos_conv_embed.layers.\1.conv.\2",
        ),
        (r"encoder\.layer_norm\.(weight|bias)", r"encoder.layer_norm.\1"),
        (
            r"encoder\.layers\.(\d+)\.self_attn\.([qkv]|out)_proj\.(weight|bias)",
            r"encoder.layers.\1.attention.\2_proj.\3",
        ),
        (
            r"encoder\.layers\.(\d+)\.self_attn_layer_norm\.(weight|bias)",
            r"encoder.layers.\1.layer_norm.\2",
        ),
        (
            r"encoder\.layers\.(\d+)\.final_layer_norm\.(weight|bias)",
            r"encoder.layers.\1.final_layer_norm.\2",
        ),
        (
            r"encoder\.layers\.(\d+)\.fc1\.(weight|bias)",
            r"encoder.layers.\1.feed_forward.intermediate_dense.\2",
        ),
        (
            r"encoder\.layers\.(\d+)\.fc2\.(weight|bias)",
            r"encoder.layers.\1.feed_forward.output_dense.\2",
        ),
    )
)

# With batch norm the positional conv moves to entry 1 and has no weight norm.
_BATCH_NORM_RULES = (
    (
        re.compile(
            r"encoder\.pos_conv\.0\."
            r"(weight|bias|running_mean|running_var|num_batches_tracked)"
        ),
        r"encoder.pos_conv_embed.batch_norm.\1",
    ),
    (
        re.compile(r"encoder\.pos_conv\.1\.(weight|bias)"),
        r"encoder.pos_conv_embed.conv.\1",
    ),
)


def has_batch_norm(state: dict[str, Tensor]) -> bool:
    """Return whether the positional conv has a batch norm before it.

    Arguments
    ---------
    state : dict of str to torch.Tensor
        Unwrapped fairseq weights.

    Returns
    -------
    bool
        True for some HuBERT models trained in bfloat16.
    """
    return "encoder.pos_conv.0.running_mean" in state


def has_stacked_positions(state: dict[str, Tensor]) -> bool:
    """Return whether there is a stack of positional convs (data2vec).

    Arguments
    ---------
    state : dict of str to torch.Tensor
        Unwrapped fairseq weights.

    Returns
    -------
    bool
        True for data2vec.
    """
    return "encoder.pos_conv.0.0.weight" in state


def unwrap(model: dict[str, object]) -> dict[str, Tensor]:
    """Return the encoder's weights, without heads and wrappers.

    Arguments
    ---------
    model : dict
        The "model" entry of a checkpoint, pre-trained or fine-tuned.

    Returns
    -------
    dict of str to torch.Tensor
        By fairseq's names inside the encoder.
    """
    tensors = {k: v for k, v in model.items() if isinstance(v, Tensor)}
    for prefix in WRAPPERS:
        if any(name.startswith(prefix) for name in tensors):
            tensors = {
                name.removeprefix(prefix): value
                for name, value in tensors.items()
                if name.startswith(prefix)
            }
            break
    return {
        name: value
        for name, value in tensors.items()
        if name.split(".")[0] not in LEFT_OUT
    }


def rename(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """Give every weight its Hugging Face name.

    Arguments
    ---------
    state : dict of str to torch.Tensor
        Unwrapped fairseq weights.
    where : str
        For errors.

    Returns
    -------
    dict of str to torch.Tensor
        By Hugging Face names, relative to the base model.

    Raises
    ------
    FormatError
        If a weight has a name that these encoders do not have.
    """
    rules = (_BATCH_NORM_RULES if has_batch_norm(state) else ()) + _RULES
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        for pattern, replacement in rules:
            match = pattern.fullmatch(name)
            if match:
                renamed[match.expand(replacement)] = value
                break
        else:
            raise FormatError(
                f"{where} has a weight {name!r} that wav2vec2, HuBERT and "
                f"data2vec of fairseq do not have: another architecture?"
            )
    if "feature_projection.projection.weight" not in renamed:
        # fairseq leaves the projection out where the widths are equal.
        width = len(renamed["feature_projection.layer_norm.weight"])
        renamed["feature_projection.projection.weight"] = torch.eye(width)
        renamed["feature_projection.projection.bias"] = torch.zeros(width)
    return renamed
