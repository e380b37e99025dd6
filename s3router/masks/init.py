"""How scores start: every initialisation of the original, named for what it is.

Where the original belies its own names this file follows the name: there
`xavier_normal` draws from the uniform distribution, here from the normal one.
`kaiming` is the uniform one with slope sqrt(5), as torch.nn.Linear starts.
Must not select and must not know the encoder. Source: S3-Router, code of the
scores; which of them can move a mask was measured on it (60 Adam steps at
2e-4, 10% sparsity: 8 to 10% of the entries changed with the first four,
about 1% with `uniform` and `normal`, none with the last three).
"""

import hashlib
import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from s3router.errors import SettingError, one_of
from s3router.masks.rules import removed_count
from s3router.masks.select_numpy import Scratch, keep_largest

#: Name to what it does; the order is that of the documentation.
INITS = {
    "weight_rank": "kaiming_uniform values, ranked as |weight|",
    "negative_weight_rank": "the same, with the largest weight ranked last",
    "weight_magnitude_with_scale": "the weight divided by init_scale",
    "kaiming_uniform": "uniform within 1 / sqrt(inputs)",
    "kaiming_normal": "normal, deviation 1 / sqrt(3 * inputs)",
    "xavier_uniform": "uniform within sqrt(6 / (inputs + outputs))",
    "xavier_normal": "normal, deviation sqrt(2 / (inputs + outputs))",
    "uniform": "uniform in [0, 1)",
    "normal": "normal, deviation 1",
    "one": "all 1: the start is arbitrary",
    "weight_magnitude": "1 for the largest weights, 0 for the others",
    "negative_weight_magnitude": "0 for the largest weights, else 1",
    "zero": "refused: no score ever gets a gradient",
}
ALIASES = {"kaiming": "kaiming_uniform", "constant": "one"}
#: Starts whose |score| ranks as |weight|, or the other way round.
RANKED = ("weight_rank", "negative_weight_rank")
_BINARY = ("weight_magnitude", "negative_weight_magnitude")


def check_init(init: str, scale: float = 1.0) -> str:
    """Return the name of an initialisation without aliases.

    Arguments
    ---------
    init : str
        One of `INITS` or `ALIASES`.
    scale : float
        The divisor; other than 1 only for `weight_magnitude_with_scale`.

    Returns
    -------
    str
        A key of `INITS`.

    Raises
    ------
    SettingError
        If the name is unknown, or is `zero`, or takes no scale.

    Warns
    -----
    UserWarning
        If the scores can hardly move the mask (binary starts: a removed
        score of 0 has no gradient, and a kept one would have to fall from 1
        to 0), or if the starting mask is arbitrary (`one`).

    Example
    -------
    >>> check_init("kaiming")
    'kaiming_uniform'
    """
    init = ALIASES.get(init, init)
    one_of(init, INITS, "score initialisation")
    if init == "zero":
        raise SettingError(
            "init: zero cannot train: |score| has no gradient at 0, so no "
            "mask ever moves; use weight_rank or kaiming_uniform"
        )
    if not scale > 0 or math.isinf(scale):
        raise SettingError(f"init_scale: {scale!r} is not a positive number")
    if scale != 1 and init != "weight_magnitude_with_scale":
        raise SettingError(
            f"init_scale: {scale!r} is for weight_magnitude_with_scale only, "
            f"and the init is {init}"
        )
    if init in _BINARY:
        warnings.warn(
            f"init: {init} starts from 0 and 1, and a score of 0 has no "
            "gradient: the mask stays what it is (useful as a fixed mask "
            "only); weight_rank starts from the same mask and trains",
            stacklevel=3,
        )
    if init == "one":
        warnings.warn(
            "init: one makes all scores equal, so the starting mask removes "
            "the first weights of every matrix, whole rows of it; "
            "weight_rank starts from the smallest weights",
            stacklevel=3,
        )
    return init


def generator_of(seed: int, name: str) -> torch.Generator:
    """Return the random numbers of one layer, alike on every machine.

    Arguments
    ---------
    seed : int
        Of the method.
    name : str
        Of the layer, so that others do not change its numbers.

    Returns
    -------
    torch.Generator
        On the CPU.
    """
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    start = int.from_bytes(digest[:8], "little") >> 1
    return torch.Generator().manual_seed(start)


def initial_scores(
    init: str,
    saliency: Tensor,
    fans: tuple[int, int],
    generator: torch.Generator,
    sparsity: float = 0.0,
    scale: float = 1.0,
    scratch: Scratch | None = None,
) -> Tensor:
    """Return starting scores.

    Arguments
    ---------
    init : str
        A key of `INITS`, as `check_init` returns it.
    saliency : torch.Tensor
        float, any shape: the weight itself, or the norm of the weights of
        each group.
    fans : tuple of int
        Inputs and outputs of the weight.
    generator : torch.Generator
        Of the CPU, so that every device starts from the same scores.
    sparsity : float
        Share that is removed; matters for the binary starts only.
    scale : float
        Divisor of `weight_magnitude_with_scale`.
    scratch : Scratch, optional
        Memory to reuse.

    Returns
    -------
    torch.Tensor
        float32, shape and device of `saliency`.

    Example
    -------
    >>> generator = torch.Generator().manual_seed(0)
    >>> weight = torch.tensor([[0.1, -3.0, 2.0]])
    >>> initial_scores("weight_rank", weight, (3, 1), generator).abs().argmax()
    tensor(1)
    """
    scratch = scratch or Scratch()
    weights = saliency.detach().to("cpu", torch.float32)
    if init in RANKED:
        scores = _ranked(init, weights, fans, generator, scratch)
    elif init == "weight_magnitude_with_scale":
        scores = weights / scale
    elif init in _BINARY:
        scores = _binary(init, weights, sparsity, scratch)
    else:
        scores = _drawn(init, weights.shape, fans, generator)
    return scores.to(saliency.device)


@torch.no_grad()
def rank_together(
    init: str,
    scores: Sequence[Tensor],
    saliencies: Sequence[Tensor],
    scratch: Scratch | None = None,
) -> None:
    """Exchange the sizes of scores, so that one ranking over all is right.

    Draws of one matrix are bounded by its inputs; ranked over several
    matrices as they are, those of few inputs would stay first.

    Arguments
    ---------
    init : str
        One of `RANKED`.
    scores : sequence of torch.Tensor
        Of the units that are ranked together; overwritten. Signs stay.
    saliencies : sequence of torch.Tensor
        As of `initial_scores`, in the same order and shapes.
    scratch : Scratch, optional
        Memory to reuse.

    Example
    -------
    >>> scores = [torch.tensor([4.0, -3.0]), torch.tensor([0.2, 0.1])]
    >>> weights = [torch.tensor([1.0, -2.0]), torch.tensor([9.0, 0.0])]
    >>> rank_together("weight_rank", scores, weights)
    >>> scores
    [tensor([ 0.2000, -3.0000]), tensor([4.0000, 0.1000])]
    """
    scratch = scratch or Scratch()
    sizes = _laid_out([one.abs() for one in scores])
    sizes.sort()
    order = _ranking(_laid_out(saliencies), scratch)
    if init == "negative_weight_rank":
        order = order[::-1]
    ranked = np.empty_like(sizes)
    ranked[order] = sizes
    parts = torch.from_numpy(ranked).split([one.numel() for one in scores])
    for one, part in zip(scores, parts, strict=True):
        new = part.view(one.shape).to(one.device, one.dtype)
        one.copy_(torch.where(one < 0, -new, new))


def _laid_out(tensors: Sequence[Tensor]) -> np.ndarray:
    """Return all values in one row: float32, on the CPU."""
    rows = [one.detach().to("cpu", torch.float32).flatten() for one in tensors]
    return torch.cat(rows).numpy()


def positive_where_kept(scores: Tensor, sparsity: float) -> Tensor:
    """Return scores whose sign says what the rule `top` would keep.

    Arguments
    ---------
    scores : torch.Tensor
        float32, any shape, as `initial_scores` returned them.
    sparsity : float
        Share that is removed at the start.

    Returns
    -------
    torch.Tensor
        float32: |score| less the largest removed one, so above 0 where kept.
        Of equal scores at that border all are removed.

    Example
    -------
    >>> positive_where_kept(torch.tensor([[0.5, -4.0, 1.0, 2.0]]), 0.5)
    tensor([[-0.5000,  3.0000,  0.0000,  1.0000]])
    """
    magnitude = scores.abs()
    removed = removed_count(sparsity, scores.numel())
    if not removed:
        return magnitude
    return magnitude - magnitude.flatten().kthvalue(removed).values


def _drawn(
    init: str,
    shape: torch.Size,
    fans: tuple[int, int],
    generator: torch.Generator,
) -> Tensor:
    inputs, outputs = fans
    scores = torch.ones(shape)
    uniform = {
        # torch.nn.Linear's own: gain sqrt(1/3), bound gain * sqrt(3 / inputs)
        "kaiming_uniform": 1 / math.sqrt(inputs),
        "xavier_uniform": math.sqrt(6 / (inputs + outputs)),
    }
    normal = {
        # of the same variance as kaiming_uniform
        "kaiming_normal": 1 / math.sqrt(3 * inputs),
        "xavier_normal": math.sqrt(2 / (inputs + outputs)),
        "normal": 1.0,
    }
    if init in uniform:
        bound = uniform[init]
        return scores.uniform_(-bound, bound, generator=generator)
    if init in normal:
        return scores.normal_(0, normal[init], generator=generator)
    if init == "uniform":
        return scores.uniform_(0, 1, generator=generator)
    return scores


def _ranked(
    init: str,
    weights: Tensor,
    fans: tuple[int, int],
    generator: torch.Generator,
    scratch: Scratch,
) -> Tensor:
    """Return kaiming draws placed so that |score| ranks as |weight|."""
    drawn = _drawn("kaiming_uniform", weights.shape, fans, generator)
    values = drawn.numpy().reshape(-1)
    # Copied out before the keys are used again.
    sorted_draws = values[_ranking(values, scratch)]
    order = _ranking(weights.numpy().reshape(-1), scratch)
    if init == "negative_weight_rank":
        order = order[::-1]
    values[order] = sorted_draws
    return drawn


def _ranking(values: np.ndarray, scratch: Scratch) -> np.ndarray:
    """Return the indices by rising |value|; equal ones by rising index.

    The one sort of the package, once for each matrix before training. Keys
    of value and index are unique, so that machines with other sort kernels
    agree where weights are equal, as they often are after float16. Valid
    until the scratch is used again.
    """
    keys = scratch.keys(values.size)
    magnitude = np.uint32(0x7FFFFFFF)
    np.bitwise_and(values.view(np.uint32), magnitude, out=keys)
    keys <<= np.uint64(32)
    keys |= np.arange(keys.size, dtype=np.uint32)
    keys.sort()
    keys &= np.uint64(0xFFFFFFFF)
    return keys.view(np.int64)


def _binary(
    init: str, weights: Tensor, sparsity: float, scratch: Scratch
) -> Tensor:
    """Return 1 for the largest weights (or for all but these) and else 0."""
    values = np.ascontiguousarray(weights.numpy().reshape(-1))
    keep = np.empty(values.size, np.bool_)
    removed = removed_count(sparsity, values.size)
    if init == "negative_weight_magnitude":
        keep_largest([values], [keep], values.size - removed, scratch)
        keep = ~keep
    else:
        keep_largest([values], [keep], removed, scratch)
    return torch.from_numpy(keep.astype(np.float32)).view(weights.shape)
