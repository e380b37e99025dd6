"""Whole channels of the convolutional front end, removed by magnitude.

The front end of a base model is a third of the cost of a short clip. A channel
of a conv layer is its row there and its column in the next layer; the last
layer's are kept, since the projection's norm runs over them. Only where no
norm mixes channels does the rest stay as it is without them. Must not train.
"""

import numpy as np
import torch
from torch import nn

from s3router.errors import SettingError
from s3router.masks.rules import check_sparsity, removed_count

_LAYER = "feature_extractor.conv_layers.{}"


def front_end_masks(
    encoder: nn.Module, sparsity: float
) -> dict[str, np.ndarray]:
    """Return masks that remove the channels of least magnitude.

    Arguments
    ---------
    encoder : torch.nn.Module
        A Hugging Face model whose front end has a group norm, or none.
    sparsity : float
        Share of the channels of each conv layer but the last that goes, in
        [0, 1).

    Returns
    -------
    dict of str to numpy.ndarray
        By conv layer: bool `(out, in, kernel)`, True where kept. Empty for
        a sparsity of 0.

    Raises
    ------
    SettingError
        If the sparsity is none, or a norm runs over the channels.
    """
    if not check_sparsity(sparsity, "front_end_sparsity"):
        return {}
    layers = encoder.feature_extractor.conv_layers
    for index, layer in enumerate(layers):
        if not has_norm_per_channel(layer):
            raise SettingError(
                f"front_end_sparsity: {_LAYER.format(index)} of this encoder "
                f"has a {type(layer.layer_norm).__name__}, whose mean and "
                "variance run over all channels, so that none can go without "
                "changing the others; set it to 0, or use an encoder with "
                "feat_extract_norm 'group'"
            )
    convs = [layer.conv.weight.detach().float() for layer in layers]
    masks = [np.ones(tuple(weight.shape), np.bool_) for weight in convs]
    for i in range(len(convs) - 1):
        removed = _least(convs[i], convs[i + 1], sparsity)
        masks[i][removed] = False
        masks[i + 1][:, removed] = False
    return {f"{_LAYER.format(i)}.conv": mask for i, mask in enumerate(masks)}


def has_norm_per_channel(layer: nn.Module) -> bool:
    """Return whether a conv layer's channels do not see each other.

    Arguments
    ---------
    layer : torch.nn.Module
        Of the front end, with `conv` and perhaps `layer_norm`.

    Returns
    -------
    bool
        False for a layer norm: its mean and variance run over the channels,
        so that without some of them all others would change.
    """
    norm = getattr(layer, "layer_norm", None)
    if isinstance(norm, nn.GroupNorm):
        return norm.num_groups == norm.num_channels
    return norm is None


def _least(
    before: torch.Tensor, after: torch.Tensor, sparsity: float
) -> np.ndarray:
    """Return the channels between two convs with the smallest norms."""
    squares = before.square().sum((1, 2)) + after.square().sum((0, 2))
    order = np.argsort(squares.cpu().numpy(), kind="stable")
    return order[: removed_count(sparsity, len(order))]
