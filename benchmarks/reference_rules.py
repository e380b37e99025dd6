"""Other ways to make the mask, to compare with; not part of the product.

`sort` re-creates the rule of the S3-Router code: in every forward pass the
|scores| of a matrix are sorted in full, the first `int((1 - keep) * n)` are
dropped, and the gradient goes through the selection unchanged. `kthvalue` is
the same with `torch.kthvalue` and one comparison.
"""

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.utils import parametrize


class _Sorted(Function):
    """1 for the largest scores and 0 for the others, by a full sort."""

    @staticmethod
    def forward(ctx: object, magnitude: Tensor, removed: int) -> Tensor:
        order = magnitude.flatten().sort().indices
        mask = torch.ones_like(magnitude)
        mask.view(-1)[order[:removed]] = 0
        return mask

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _KthValue(Function):
    """1 for the scores above the k-th smallest, 0 for the others."""

    @staticmethod
    def forward(ctx: object, magnitude: Tensor, removed: int) -> Tensor:
        threshold = torch.kthvalue(magnitude.flatten(), removed).values
        return (magnitude > threshold).to(magnitude.dtype)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


RULES = {"sort": _Sorted, "kthvalue": _KthValue}


class MaskedEveryForward(nn.Module):
    """A parametrization that selects its mask in every forward pass.

    Arguments
    ---------
    shape : torch.Size
        `(out, in)` of the weight.
    sparsity : float
        Share removed.
    rule : str
        A key of `RULES`.
    """

    def __init__(self, shape: torch.Size, sparsity: float, rule: str):
        super().__init__()
        bound = shape[1] ** -0.5
        self.scores = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.removed = int(sparsity * self.scores.numel())
        self.rule = RULES[rule]

    def forward(self, weight: Tensor) -> Tensor:
        """Return weight x mask, `(out, in)`."""
        return weight * self.rule.apply(self.scores.abs(), self.removed)


def mask_every_forward(
    encoder: nn.Module, names: list[str], sparsity: float, rule: str
) -> list[nn.Parameter]:
    """Freeze an encoder and put such masks on it.

    Arguments
    ---------
    encoder : torch.nn.Module
        The encoder.
    names : list of str
        Its linear layers that get a mask.
    sparsity : float
        Share removed.
    rule : str
        A key of `RULES`.

    Returns
    -------
    list of torch.nn.Parameter
        The scores.
    """
    for parameter in encoder.parameters():
        parameter.requires_grad_(False)
    scores = []
    for name in names:
        linear = encoder.get_submodule(name)
        mask = MaskedEveryForward(linear.weight.shape, sparsity, rule)
        mask.to(linear.weight.device)
        parametrize.register_parametrization(linear, "weight", mask)
        scores.append(mask.scores)
    return scores
