"""One mask on one weight, as a parametrization of torch.

`torch.nn.utils.parametrize` and not only a replaced forward, because WavLM
reads `q_proj.weight` itself and would silently miss the mask. Must not select:
the router overwrites `mask`, in place, once for each optimizer step.
"""

import torch
from torch import Tensor, nn

from s3router.masks.straight_through import masked_weight


class MaskedWeight(nn.Module):
    """Scores and the mask that they selected; gives weight x mask.

    Arguments
    ---------
    scores : torch.nn.Parameter
        float32 or bfloat16, `(out, in)` or one for each group of rows or
        columns. May be shared with other weights, where a group spans
        several.
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

    def forward(self, weight: Tensor) -> Tensor:
        """Return the masked weight, `(out, in)`, dtype of `weight`."""
        if self.follows:
            return weight
        return masked_weight(
            weight,
            self.scores,
            self.mask,
            self.surrogate,
            self.layout,
            self.rule,
        )

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


def written_outside_torch(tensor: Tensor) -> None:
    """Tell torch that numpy wrote into the memory of a tensor.

    Counts up its version by a write of nothing, so that autograd refuses
    graphs that saved the old values.
    """
    with torch.no_grad():
        tensor.view(-1)[:0].zero_()
