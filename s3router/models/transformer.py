"""The transformer of any family, run block by block on masked input.

transformers' own encoder forward lets padding leak in two places (the stacked
positional convs of data2vec, the batch norm of some HuBERT positional convs)
and zeroes its input in place. This is the same computation on the same
modules, with the padding kept at zero before every positional conv. It holds
no weights: masks, hooks and gradient checkpointing on the modules keep
working.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from s3router.models.families import has_stable_layer_norm
from s3router.models.wavlm import is_wavlm_attention


def run_feature_projection(projection: nn.Module, features: Tensor) -> Tensor:
    """Project conv features to the width of the transformer.

    Arguments
    ---------
    projection : torch.nn.Module
        `feature_projection` of the Hugging Face model.
    features : torch.Tensor, (B, T, C)
        Output of the conv front end.

    Returns
    -------
    torch.Tensor, (B, T, D)
        Input of the transformer, before any masking; float32 under autocast.
    """
    projected = projection(features)
    # HuBERT returns the tensor, the other families (projected, normed).
    if isinstance(projected, tuple):
        projected = projected[0]
    if torch.is_autocast_enabled(projected.device.type):
        # What blocks add up to takes this dtype. Rounded to bfloat16 it would
        # lose what late blocks add to states of hundreds, and training would
        # see another network than evaluation does.
        projected = projected.float()
    return projected


def run_transformer(
    encoder: nn.Module,
    hidden: Tensor,
    valid: Tensor | None = None,
    states: list[Tensor] | None = None,
) -> Tensor:
    """Run positional conv, blocks and norms.

    Arguments
    ---------
    encoder : torch.nn.Module
        `encoder` of the Hugging Face model.
    hidden : torch.Tensor, (B, T, D)
        Projected features.
    valid : torch.Tensor, (B, T) bool, optional
        True inside each clip; None if nothing is padded.
    states : list, optional
        Receives the input of the first block and the output of every block.
        The last of a pre-norm encoder is before the final layer norm.

    Returns
    -------
    torch.Tensor, (B, T, D)
        The encoder's output. The padding holds numbers of no meaning.
    """
    pre_norm = has_stable_layer_norm(encoder.config)
    with _convolutions_in_float32(hidden.device.type):
        position = positional_embedding(encoder.pos_conv_embed, hidden, valid)
    hidden = hidden + position
    if not pre_norm:
        hidden = encoder.layer_norm(hidden)
    hidden = encoder.dropout(hidden)

    position_bias = None
    mask = _attention_mask(encoder.config, hidden, valid)
    for block in encoder.layers:
        if states is not None:
            states.append(hidden)
        if is_wavlm_attention(block.attention):
            hidden, position_bias = block(
                hidden, attention_mask=valid, position_bias=position_bias
            )
        else:
            hidden = block(hidden, attention_mask=mask)
    if states is not None:
        states.append(hidden)
    return encoder.layer_norm(hidden) if pre_norm else hidden


def _convolutions_in_float32(device: str) -> AbstractContextManager:
    """Return a block without autocast on the CPU; elsewhere it does nothing.

    torch (2.11) computes grouped convolutions of fewer than 16 channels a group
    and 16 or more taps wrongly on the CPU in bfloat16: the error is as large
    as the result. These are a hundredth of the work.
    """
    if device == "cpu":
        return torch.autocast(device, enabled=False)
    return nullcontext()


def _attention_mask(
    config: PretrainedConfig, hidden: Tensor, valid: Tensor | None
) -> Tensor | None:
    """Return (B, 1, 1, T), which attention broadcasts over heads and queries.

    The fused attention takes True for what is heard; the plain one adds the
    mask to its logits.
    """
    if valid is None:
        return None
    mask = valid[:, None, None, :]
    if config._attn_implementation != "eager":
        return mask
    kind, dtype = hidden.device.type, hidden.dtype
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)  # that of the logits
    zero = torch.zeros((), dtype=dtype, device=hidden.device)
    return torch.where(mask, zero, torch.finfo(dtype).min)


def positional_embedding(
    embed: nn.Module, hidden: Tensor, valid: Tensor | None
) -> Tensor:
    """Return the convolutional position embedding, blind to the padding.

    At the end of a clip that is alone, each conv sees its own zero padding.
    So the padding must be zero at the input of EVERY conv, not only of the
    first: data2vec stacks five with layer norms between them, and some HuBERT
    models put a batch norm, which moves zeros, before their one.

    Arguments
    ---------
    embed : torch.nn.Module
        `encoder.pos_conv_embed` of the Hugging Face model.
    hidden : torch.Tensor, (B, T, D)
        Input of the transformer.
    valid : torch.Tensor, (B, T) bool or None
        True inside each clip; None if nothing is padded.

    Returns
    -------
    torch.Tensor, (B, T, D)
        To be added to `hidden`.
    """
    hidden = zero_padding(hidden, valid)
    stacked = getattr(embed, "layers", None)
    if stacked is not None:
        hidden = hidden.transpose(1, 2)
        for layer in stacked:
            hidden = layer(hidden).transpose(1, 2)
            hidden = zero_padding(hidden, valid).transpose(1, 2)
        return hidden.transpose(1, 2)
    batch_norm = getattr(embed, "batch_norm", None)
    if batch_norm is None or valid is None:
        return embed(hidden)
    hidden = batch_norm(hidden.transpose(1, 2)).transpose(1, 2)
    hidden = zero_padding(hidden, valid).transpose(1, 2)
    hidden = embed.activation(embed.padding(embed.conv(hidden)))
    return hidden.transpose(1, 2)


def zero_padding(hidden: Tensor, valid: Tensor | None) -> Tensor:
    """Return `hidden` with zeros outside each clip.

    Arguments
    ---------
    hidden : torch.Tensor, (B, T, D)
        Anything with one row for each frame.
    valid : torch.Tensor, (B, T) bool or None
        True inside each clip; None returns `hidden` itself.

    Returns
    -------
    torch.Tensor, (B, T, D)
        A new tensor; never changed in place.
    """
    if valid is None:
        return hidden
    return hidden.masked_fill(~valid[:, :, None], 0.0)
