"""A linear layer with a mask, whose backward makes weight x mask anew.

`torch.nn.functional.linear` keeps the weight that it multiplied by until
backward. For a masked one that would be a second copy of all weights. What is
kept here lives anyway: the input, the frozen weight, the mask, the scores.
The gradient of the scores is that of `s3router.masks.straight_through`.
"""

import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from s3router.masks.straight_through import product, score_gradient

#: By thread: a matrix of each shape and dtype, which all layers share. On the
#: CPU the pages of a fresh one cost several times the product.
_memory = threading.local()


class _MaskedLinear(Function):
    """inputs @ (weight x mask).T + bias."""

    @staticmethod
    def forward(
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scores: Tensor,
        mask: Tensor,
        surrogate: str,
        layout: str,
        rule: str,
    ) -> Tensor:
        masked = _product_for_now(weight, mask, inputs.dtype)
        return functional.linear(inputs, masked, bias)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Any, ...], output: Tensor
    ) -> None:
        values, weight, _, scores, mask, *names = inputs
        ctx.surrogate, ctx.layout, ctx.rule = names
        of_weight = any(ctx.needs_input_grad[i] for i in (1, 3))
        ctx.save_for_backward(
            values if of_weight else None, weight, scores, mask
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, scores, mask = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        of_inputs = of_weight = of_bias = of_scores = None
        if wanted[0]:
            of_inputs = gradient @ _product_for_now(
                weight, mask, gradient.dtype
            )
        rows = gradient.reshape(-1, gradient.shape[-1])
        if wanted[2]:
            of_bias = rows.sum(0)
        if inputs is not None:
            of_masked = rows.t() @ inputs.reshape(-1, inputs.shape[-1])
            of_masked = of_masked.float()
            if wanted[1]:
                of_weight = (of_masked * mask).to(weight.dtype)
            if wanted[3]:
                names = ctx.surrogate, ctx.layout, ctx.rule
                values = of_masked.mul_(weight)
                of_scores = score_gradient(values, scores, *names)
        return of_inputs, of_weight, of_bias, of_scores, *[None] * 4


def masked_forward(linear: nn.Linear, inputs: Tensor) -> Tensor:
    """Return what a layer with a mask puts out.

    Arguments
    ---------
    linear : torch.nn.Linear
        With a `MaskedWeight` as the only parametrization of its weight.
    inputs : torch.Tensor
        `(..., in)`.

    Returns
    -------
    torch.Tensor
        `(..., out)`; under autocast in its dtype, as that of any layer.
    """
    (mask,) = linear.parametrizations.weight
    if mask.follows or torch.compiler.is_compiling():
        return functional.linear(inputs, linear.weight, linear.bias)
    bias = linear.bias
    kind = inputs.device.type
    if torch.is_autocast_enabled(kind):
        # Outside of the function, so that their gradients are cast back.
        dtype = torch.get_autocast_dtype(kind)
        inputs = inputs.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    weight = linear.parametrizations.weight.original
    return _MaskedLinear.apply(
        inputs,
        weight,
        bias,
        mask.scores,
        mask.mask,
        mask.surrogate,
        mask.layout,
        mask.rule,
    )


def _product_for_now(
    weight: Tensor, mask: Tensor, dtype: torch.dtype
) -> Tensor:
    """Return weight x mask, valid until the next call in this thread."""
    if (
        weight.device.type != "cpu"
        or weight.dtype != torch.float32
        or not weight.is_contiguous()
    ):
        return product(weight, mask).to(dtype)
    made = _matrix(weight.shape, torch.float32)
    np.multiply(
        weight.detach().numpy(),
        mask.view(torch.uint8).numpy(),
        out=made.numpy(),
    )
    if dtype == torch.float32:
        return made
    return _matrix(weight.shape, dtype).copy_(made)


def _matrix(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    kept = _memory.__dict__.setdefault("matrices", {})
    key = (*shape, dtype)
    if key not in kept:
        # Not an inference tensor, wherever it is first asked for.
        with torch.inference_mode(False):
            kept[key] = torch.empty(shape, dtype=dtype)
    return kept[key]
