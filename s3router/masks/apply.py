"""Put what a subnetwork holds into a plain encoder: masks, tuned weights."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from s3router.errors import MismatchError, near
from s3router.masks.attach import check_plain
from s3router.masks.exchange import as_tensor, check_form


@torch.no_grad()
def apply_masks(
    encoder: nn.Module, masks: Mapping[str, Tensor | np.ndarray]
) -> None:
    """Multiply masks into plain weights, in place and for good.

    What `Router.fold` leaves, for a mask that was loaded from a file.

    Arguments
    ---------
    encoder : torch.nn.Module
        An encoder without masks.
    masks : mapping
        By linear layer: bool `(out, in)`; by conv layer of the front end:
        bool `(out, in, kernel)`. Layers without a mask stay.

    Raises
    ------
    MismatchError
        If a name is no such layer, or a shape or dtype differs; nothing
        has then been changed.
    SettingError
        If a weight already has a parametrization.

    Example
    -------
    >>> layer = nn.Sequential(nn.Linear(2, 1))
    >>> apply_masks(layer, {"0": np.array([[True, False]])})
    >>> (layer[0].weight == 0).tolist()
    [[False, True]]
    """
    linears = {
        name: module
        for name, module in encoder.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv1d))
    }
    new = {name: as_tensor(mask) for name, mask in masks.items()}
    for name, mask in new.items():
        if name not in linears:
            raise MismatchError(
                f"mask {name!r} has no linear layer in this encoder: "
                f"{near(name, linears)}it has {len(linears)}, as "
                f"{next(iter(linears), None)!r}"
            )
        check_plain(linears[name], name)
        check_form(name, mask, linears[name].weight.shape, torch.bool, "mask")
    for name, mask in new.items():
        weight = linears[name].weight
        weight.mul_(mask.to(weight.device))


@torch.no_grad()
def put_weights(model: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Replace weights of a model by name, strictly.

    Arguments
    ---------
    model : torch.nn.Module
        The Hugging Face model of the encoder.
    weights : mapping of str to np.ndarray
        Names relative to `model`; whole tensors.

    Raises
    ------
    MismatchError
        If a name does not exist, or a shape differs; nothing is then changed.
    """
    state = model.state_dict(keep_vars=True)
    for name, value in weights.items():
        if name not in state:
            raise MismatchError(
                f"the subnetwork's tuned weight {name} is no weight of the "
                f"encoder"
            )
        if tuple(state[name].shape) != tuple(value.shape):
            raise MismatchError(
                f"the subnetwork's tuned weight {name} has shape "
                f"{tuple(value.shape)}, the encoder's has "
                f"{tuple(state[name].shape)}"
            )
    for name, value in weights.items():
        state[name].copy_(torch.from_numpy(np.array(value)))
