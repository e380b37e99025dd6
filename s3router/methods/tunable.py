"""The weights that a method may tune, and how they come back.

Everything behind the convolutional front end, under every method that tunes
weights, so that they differ in nothing else. Must not decide what is pruned.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from s3router.errors import MismatchError
from s3router.methods.base import freeze

# Never part of the computation here, so it would have no gradient.
_UNUSED = "masked_spec_embed"


def free_weights(encoder: nn.Module) -> dict[str, nn.Parameter]:
    """Freeze the front end, free everything behind it.

    Arguments
    ---------
    encoder : torch.nn.Module
        The Hugging Face model.

    Returns
    -------
    dict
        What trains now, by parameter name.
    """
    freeze(encoder)
    front_end = set(encoder.feature_extractor.parameters())
    free = {
        name: parameter
        for name, parameter in encoder.named_parameters()
        if parameter not in front_end and name != _UNUSED
    }
    for parameter in free.values():
        parameter.requires_grad_(True)
    return free


@torch.no_grad()
def restore_weights(
    tuned: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> None:
    """Take back tuned weights from a checkpoint, all or none.

    Arguments
    ---------
    tuned : mapping
        Live weights by name; overwritten.
    state : mapping
        As they were.

    Raises
    ------
    MismatchError
        If names or shapes differ; nothing has then been changed.
    """
    if set(state) != set(tuned):
        odd = sorted(set(state) ^ set(tuned))
        raise MismatchError(
            f"the checkpoint's tuned weights are not this encoder's: "
            f"{odd[0]} is in only one of them ({len(odd)} such names)"
        )
    for name, parameter in tuned.items():
        if state[name].shape != parameter.shape:
            raise MismatchError(
                f"the checkpoint's {name} is {tuple(state[name].shape)}, "
                f"this encoder's {tuple(parameter.shape)}: it is of "
                "another encoder; choose another --output_folder"
            )
    for name, parameter in tuned.items():
        parameter.copy_(state[name])
