"""The masked weight, and the gradient that passes straight through the mask.

Forward: weight x mask. Backward, for every entry, kept or removed:

    d loss / d score = sign(score) * weight * d loss / d masked weight

the rule of S3-Router (section 3; its code differentiates |score| and treats
the selection as the identity). A score that stands for a group of weights
gets the sum over the group. With the sigmoid surrogate the selection counts
as sigmoid(|score|) in the backward pass, so the gradient is multiplied by its
slope. Must not know where masks come from.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

SURROGATES = ("identity", "sigmoid")
#: How scores lie on a weight: one each, one for some rows, for some columns.
LAYOUTS = ("entries", "rows", "columns")


class _Masked(Function):
    """weight x mask, with the gradient of above.

    Saves the frozen weight, the scores and, only where the weight itself
    trains, the mask: tensors that live anyway, so nothing is copied.
    """

    @staticmethod
    def forward(
        weight: Tensor,
        scores: Tensor,
        mask: Tensor,
        surrogate: str,
        layout: str,
    ) -> Tensor:
        # As bytes: a product with bool takes a slower path on the CPU, by
        # half; uint8 promotes to the dtype of the weight alike.
        return weight * mask.view(torch.uint8)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: Tensor
    ) -> None:
        weight, scores, mask, ctx.surrogate, ctx.layout = inputs
        kept = mask if ctx.needs_input_grad[0] else None
        ctx.save_for_backward(weight, scores, kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, scores, mask = ctx.saved_tensors
        of_weight = of_scores = None
        if ctx.needs_input_grad[0]:
            of_weight = gradient * mask
        if ctx.needs_input_grad[1]:
            of_scores = _sum(
                gradient.to(scores.dtype) * weight, ctx.layout, scores
            )
            of_scores.mul_(scores.sign())
            if ctx.surrogate == "sigmoid":
                gate = torch.sigmoid(scores.abs())
                of_scores.mul_(gate * (1 - gate))
        return of_weight, of_scores, None, None, None


def _sum(values: Tensor, layout: str, scores: Tensor) -> Tensor:
    """Sum (out, in) values over the group of weights of each score."""
    groups = scores.shape[0]
    if layout == "rows":
        return values.view(groups, -1).sum(1)
    if layout == "columns":
        return values.sum(0).view(groups, -1).sum(1)
    return values


def masked_weight(
    weight: Tensor,
    scores: Tensor,
    mask: Tensor,
    surrogate: str = "identity",
    layout: str = "entries",
) -> Tensor:
    """Return weight x mask; gradients reach the scores straight through.

    Arguments
    ---------
    weight : torch.Tensor
        `(out, in)`, any float dtype, as a rule frozen.
    scores : torch.Tensor
        float32: `(out, in)` for `entries`; `(groups,)` for `rows`, where
        score g stands for rows `g * out / groups` and following, and for
        `columns` alike.
    mask : torch.Tensor
        bool `(out, in)`, True where kept.
    surrogate : str
        `identity` or `sigmoid`.
    layout : str
        `entries`, `rows` or `columns`.

    Returns
    -------
    torch.Tensor
        `(out, in)`, dtype of the weight.

    Example
    -------
    >>> weight = torch.tensor([[2.0, 3.0]])
    >>> scores = torch.tensor([[-1.0, 4.0]], requires_grad=True)
    >>> masked = masked_weight(weight, scores, torch.tensor([[False, True]]))
    >>> masked.sum().backward()
    >>> masked.tolist(), scores.grad.tolist()
    ([[0.0, 3.0]], [[-2.0, 3.0]])
    """
    return _Masked.apply(weight, scores, mask, surrogate, layout)
