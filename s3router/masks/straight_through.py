"""The masked weight, and the gradient that passes straight through the mask.

Forward: weight x mask. Backward, for every entry, kept or removed:

    d loss / d score = sign(score) * weight * d loss / d masked weight

the rule of S3-Router (section 3; its code differentiates |score| and treats
the selection as the identity). A score that stands for a group of rows or
columns gets the sum over them. With the sigmoid surrogate the selection counts
as sigmoid(|score|) in the backward pass, so the gradient is multiplied by its
slope. Where the rule asks for positive scores, and not for large ones, the sign
is left out and |score| is the score. Must not know where masks come from.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

SURROGATES = ("identity", "sigmoid")
#: How scores lie on a weight: one each, one for some rows, for some columns.
LAYOUTS = ("entries", "rows", "columns")
#: Entries for each thread in one piece of the gradient's sign.
_PIECE = 1 << 17


def product(weight: Tensor, mask: Tensor) -> Tensor:
    """Return weight x mask, `(out, in)`, dtype of the weight."""
    # As bytes: a product with bool takes a slower path on the CPU, by half;
    # uint8 promotes to the dtype of the weight alike.
    return weight * mask.view(torch.uint8)


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
        rule: str,
    ) -> Tensor:
        return product(weight, mask)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: Tensor
    ) -> None:
        weight, scores, mask, *names = inputs
        ctx.surrogate, ctx.layout, ctx.rule = names
        kept = mask if ctx.needs_input_grad[0] else None
        ctx.save_for_backward(weight, scores, kept)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, scores, mask = ctx.saved_tensors
        names = ctx.surrogate, ctx.layout, ctx.rule
        of_weight = of_scores = None
        if ctx.needs_input_grad[0]:
            of_weight = gradient * mask
        if ctx.needs_input_grad[1]:
            of_scores = score_gradient(
                gradient.float() * weight, scores, *names
            )
        return of_weight, of_scores, None, None, None, None


def score_gradient(
    values: Tensor, scores: Tensor, surrogate: str, layout: str, rule: str
) -> Tensor:
    """Return the gradient of scores.

    Arguments
    ---------
    values : torch.Tensor
        `(out, in)` float32: weight times gradient of the masked weight. May
        be overwritten.
    scores : torch.Tensor
        See `masked_weight`, as the other arguments.
    surrogate, layout, rule : str
        See there.

    Returns
    -------
    torch.Tensor
        Shape and dtype of `scores`.
    """
    values = _sum(values, layout, scores)
    if rule == "top":
        _multiply_by_sign(values, scores)
    if surrogate == "sigmoid":
        # The slope is the same at s and at |s|.
        gate = torch.sigmoid(scores.float())
        values.mul_(gate * (1 - gate))
    return values.to(scores.dtype)


def _sum(values: Tensor, layout: str, scores: Tensor) -> Tensor:
    """Sum (out, in) values over the group of weights of each score."""
    groups = scores.shape[0]
    if layout == "rows":
        return values.view(groups, -1).sum(1)
    if layout == "columns":
        return values.sum(0).view(groups, -1).sum(1)
    return values


def _multiply_by_sign(values: Tensor, scores: Tensor) -> None:
    """Multiply in place by sign(score), which is 0 at 0."""
    if values.device.type != "cpu" or torch.compiler.is_compiling():
        values.mul_(scores.sign())
        return
    # In pieces that stay in the cache: a whole tensor of signs would be
    # fresh memory, whose pages cost the CPU more than the arithmetic.
    size = _PIECE * torch.get_num_threads()
    for part, score in zip(
        values.view(-1).split(size), scores.view(-1).split(size), strict=True
    ):
        part.mul_(score.sign())


def masked_weight(
    weight: Tensor,
    scores: Tensor,
    mask: Tensor,
    surrogate: str = "identity",
    layout: str = "entries",
    rule: str = "top",
) -> Tensor:
    """Return weight x mask; gradients reach the scores straight through.

    Arguments
    ---------
    weight : torch.Tensor
        `(out, in)`, any float dtype, as a rule frozen.
    scores : torch.Tensor
        float32 or bfloat16: `(out, in)` for `entries`; `(groups,)` for
        `rows`, where score g stands for rows `g * out / groups` and
        following, and for `columns` alike.
    mask : torch.Tensor
        bool `(out, in)`, True where kept.
    surrogate : str
        `identity` or `sigmoid`.
    layout : str
        `entries`, `rows` or `columns`.
    rule : str
        What selected the mask: `top` or `positive`.

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
    return _Masked.apply(weight, scores, mask, surrogate, layout, rule)
