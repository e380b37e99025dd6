"""One mask on one weight, as a parametrization of torch.

`torch.nn.utils.parametrize` and not a replaced Linear, because WavLM reads
`q_proj.weight` itself and would silently miss the mask. Must not select:
the router overwrites `mask`, in place, once for each optimizer step.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from s3router.errors import SettingError
from s3router.masks.straight_through import masked_weight


class MaskedWeight(nn.Module):
    """Scores, the mask that they selected, and weight x mask.

    Arguments
    ---------
    scores : torch.nn.Parameter
        float32, `(out, in)` or one for each group of rows or columns. May be
        shared with other weights, where a group spans several.
    shape : tuple of int
        `(out, in)` of the weight.
    surrogate : str
        `identity` or `sigmoid`, see `s3router.masks.straight_through`.
    layout : str
        `entries`, `rows` or `columns`.
    rule : str
        What selects the mask: `top` or `positive`.

    Example
    -------
    >>> scores = nn.Parameter(torch.ones(2, 3))
    >>> mask = MaskedWeight(scores, (2, 3))
    >>> mask(torch.ones(2, 3)).sum().item()
    6.0
    """

    def __init__(
        self,
        scores: nn.Parameter,
        shape: tuple[int, int],
        surrogate: str = "identity",
        layout: str = "entries",
        rule: str = "top",
    ):
        super().__init__()
        self.rule = rule
        self.surrogate = surrogate
        self.layout = layout
        #: Whether the weight is passed on whole, because what comes out of
        #: its removed rows meets columns that are removed too. The output is
        #: the same, but the score of a removed group sees what the group
        #: would do: with rows at zero its gradient would be zero as well
        #: (but for biases), and no channel or head could ever come back.
        self.follows = False
        self.scores = scores
        # One buffer for ever: what is compiled, or reads it, keeps valid
        # when the mask changes.
        mask = torch.ones(shape, dtype=torch.bool, device=scores.device)
        self.register_buffer("mask", mask)
        self._ready: Tensor | None = None
        self._ready_for: tuple[int, ...] = ()

    def forward(self, weight: Tensor) -> Tensor:
        """Return the masked weight, `(out, in)`, dtype of `weight`."""
        if self.follows:
            return weight
        ready = None
        if not torch.compiler.is_compiling() and _keeps_product(weight):
            ready = self._product(weight)
        return masked_weight(
            weight,
            self.scores,
            self.mask,
            self.surrogate,
            self.layout,
            ready,
            self.rule,
        )

    @torch.no_grad()
    def _product(self, weight: Tensor) -> Tensor:
        """Return weight x mask, from memory that is kept between calls.

        On the CPU only: there the pages of a fresh tensor for each weight
        and forward pass cost several times the product. It is made anew
        whenever torch has written to the weight or the mask.
        """
        state = (
            *(weight.data_ptr(), weight._version),
            *(self.mask.data_ptr(), self.mask._version),
        )
        if self._ready is None or self._ready.shape != weight.shape:
            self._ready = torch.empty_like(weight)
        elif self._ready_for == state:
            return self._ready
        np.multiply(
            weight.detach().numpy(),
            self.mask.view(torch.uint8).numpy(),
            out=self._ready.numpy(),
        )
        # A graph from before must not go backward with the new values.
        written_outside_torch(self._ready)
        self._ready_for = state
        return self._ready

    def forget(self) -> None:
        """Give back what is kept between calls; made again when needed."""
        self._ready = None

    def _apply(self, *arguments: Any, **options: Any) -> "MaskedWeight":
        self.forget()
        return super()._apply(*arguments, **options)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out of copies and pickles what can be made again."""
        return {**self.__dict__, "_ready": None}

    @torch.no_grad()
    def write_groups(self, keep: Tensor) -> Tensor:
        """Write the mask from one bool for each group of rows or columns.

        Arguments
        ---------
        keep : torch.Tensor
            bool `(groups,)`.

        Returns
        -------
        torch.Tensor
            int64 `(2,)`: entries that flipped, and that are removed now.
        """
        wide = self._wide(keep)
        flipped = (self.mask != wide).sum()
        self.mask.copy_(wide)
        return torch.stack([flipped, (~self.mask).sum()])

    def groups(self, count: int) -> Tensor:
        """Return which of `count` groups have any weight left, bool."""
        rows = self.mask if self.layout == "rows" else self.mask.t()
        return rows.reshape(count, -1).any(1)

    def is_made_of(self, keep: Tensor) -> bool:
        """Return whether the mask is what `write_groups(keep)` writes."""
        return bool((self.mask == self._wide(keep)).all())

    def _wide(self, keep: Tensor) -> Tensor:
        rows, columns = self.mask.shape
        axis = rows if self.layout == "rows" else columns
        wide = keep.repeat_interleave(axis // keep.numel())
        wide = wide[:, None] if self.layout == "rows" else wide[None, :]
        return wide.expand(rows, columns)


def _keeps_product(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.is_contiguous()
        and not weight.is_inference()
        # Fused optimizers write without telling torch.
        and not weight.requires_grad
    )


def written_outside_torch(tensor: Tensor) -> None:
    """Tell torch that numpy wrote into the memory of a tensor.

    Counts up its version by a write of nothing, so that autograd refuses
    graphs that saved the old values, and whoever derived something from them
    can see that it is out of date.
    """
    with torch.no_grad():
        tensor.view(-1)[:0].zero_()


def attach(linear: nn.Linear, name: str, mask: MaskedWeight) -> None:
    """Put a mask on the weight of a linear layer.

    Arguments
    ---------
    linear : torch.nn.Linear
        The layer; its weight stays as it is, under
        `parametrizations.weight.original`.
    name : str
        What the layer is called, for messages.
    mask : MaskedWeight
        The mask.

    Raises
    ------
    SettingError
        If the weight already has a parametrization: removing the mask later
        would remove that one too.
    """
    check_plain(linear, name)
    parametrize.register_parametrization(linear, "weight", mask)


def check_plain(linear: nn.Module, name: str) -> None:
    """Raise SettingError if the weight already is parametrized."""
    if parametrize.is_parametrized(linear, "weight"):
        kinds = [type(p).__name__ for p in linear.parametrizations.weight]
        raise SettingError(
            f"{name}.weight already has a parametrization "
            f"({', '.join(kinds)}): remove or fold it before it gets a mask"
        )
    if not isinstance(getattr(linear, "weight", None), nn.Parameter):
        raise SettingError(f"{name} has no plain weight that could be masked")


def detach(linear: nn.Linear, fold: bool) -> None:
    """Take the mask off; the layer is a plain `torch.nn.Linear` again.

    Arguments
    ---------
    linear : torch.nn.Linear
        A layer with a mask.
    fold : bool
        True leaves weight x mask as the weight, False the weight unmasked.
    """
    parametrize.remove_parametrizations(
        linear, "weight", leave_parametrized=fold
    )
