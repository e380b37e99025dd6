"""A physically smaller encoder: without the heads and channels that are cut.

The layers are the same modules with smaller arrays, so that the forward pass,
and its export, are those of any encoder.
"""

import numpy as np
import torch
from torch import Tensor, nn

from s3router.export.cuts import Cuts
from s3router.export.fold import FoldedModel
from s3router.masks.targets import find_blocks
from s3router.models.wavlm import cut_wavlm_heads, is_wavlm_attention

#: What layers call the number of their rows and of their columns.
_SIZES = (
    ("out_features", "out_channels", "num_channels", "num_groups"),
    ("in_features", "in_channels"),
)


class OnlyBias(nn.Module):
    """What is left of a linear layer that has no inputs.

    Arguments
    ---------
    bias : torch.nn.Parameter or None
        (D,), or None for a layer without one.

    Example
    -------
    >>> OnlyBias(nn.Parameter(torch.ones(2)))(torch.zeros(1, 3, 5)).tolist()
    [1.0, 1.0]
    """

    def __init__(self, bias: nn.Parameter | None):
        super().__init__()
        self.register_parameter("bias", bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return (D,), which is added to every frame."""
        return hidden.new_zeros(()) if self.bias is None else self.bias


class NoHeads(nn.Module):
    """Attention without heads: its output layer's bias.

    Arguments
    ---------
    bias : torch.nn.Parameter or None
        (D,).
    """

    def __init__(self, bias: nn.Parameter | None):
        super().__init__()
        self.out_proj = OnlyBias(bias)

    def forward(self, hidden: Tensor, **_: object) -> tuple[Tensor, None]:
        """Return what any attention does: its output, and no weights."""
        return self.out_proj(hidden), None


def compact(model: FoldedModel, cuts: Cuts) -> FoldedModel:
    """Take what is cut out of a model.

    Arguments
    ---------
    model : FoldedModel
        Of whole shape; changed in place. Its logits stay where the masks that
        `cuts` were found from are folded in.
    cuts : Cuts
        From `find_cuts` of this model and its masks.

    Returns
    -------
    FoldedModel
        The same model, smaller.
    """
    encoder = model.encoder.model
    blocks = [block for block in find_blocks(encoder) if block.attention]
    for block, heads in zip(blocks, cuts.heads, strict=True):
        _set_heads(encoder.get_submodule(block.prefix), heads)
    for part, last in cuts.gone.items():
        _leave_bias(encoder, part, last)
    for name in cuts.axes:
        owner, _, parameter = name.rpartition(".")
        _shrink(encoder.get_submodule(owner), parameter, name, cuts)
    return model


def _set_heads(block: nn.Module, heads: np.ndarray) -> None:
    attention = block.attention
    if len(heads) == attention.num_heads:
        return
    if is_wavlm_attention(attention):
        cut_wavlm_heads(attention, torch.from_numpy(heads))
    elif len(heads) == 0:
        block.attention = NoHeads(attention.out_proj.bias)
    else:
        attention.num_heads = len(heads)


def _leave_bias(encoder: nn.Module, part: str, last: str) -> None:
    """Replace the layers of a part of which nothing is kept."""
    module = encoder.get_submodule(part)
    if isinstance(module, NoHeads):
        return
    bias = OnlyBias(encoder.get_submodule(last).bias)
    setattr(module, last.rpartition(".")[2], bias)
    if is_wavlm_attention(module):
        for name in ("q_proj", "k_proj", "v_proj"):
            delattr(module, name)
    else:
        # The part itself stays: an adapter may hang on it.
        module.intermediate_dense = nn.Identity()
        module.intermediate_act_fn = nn.Identity()


def _shrink(owner: nn.Module, parameter: str, name: str, cuts: Cuts) -> None:
    small = cuts.take(name, getattr(owner, parameter).detach().numpy())
    small = torch.from_numpy(np.ascontiguousarray(small))
    setattr(owner, parameter, nn.Parameter(small, requires_grad=False))
    for axis in cuts.axes[name]:
        for size in _SIZES[axis]:
            if hasattr(owner, size):
                setattr(owner, size, small.shape[axis])
