"""The scores of a whole encoder at the start, of each ranking rightly.

`init.py` knows one matrix; what is ranked over several needs them all. Must
not select.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from s3router.masks.init import (
    RANKED,
    generator_of,
    initial_scores,
    positive_where_kept,
    rank_together,
)
from s3router.masks.select_numpy import Scratch
from s3router.masks.units import Share, Unit


@torch.no_grad()
def fill_scores(
    scores: Mapping[str, Tensor],
    units: Sequence[Unit],
    shares: Sequence[Share],
    together: Sequence[Sequence[str]],
    encoder: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    init: str,
    scale: float,
    seed: int,
    positive: bool,
    scratch: Scratch,
) -> None:
    """Give all scores the values that they start from.

    Arguments
    ---------
    scores : mapping
        By unit; overwritten.
    units : sequence of Unit
        What has a score.
    shares : sequence of Share
        For each unit its sparsity.
    together : sequence of sequence of str
        Names of the units that have one ranking.
    encoder : torch.nn.Module
        Of which the units are.
    weights : mapping
        By linear layer, `(out, in)`: as they were before masks.
    init : str
        A key of `s3router.masks.init.INITS`.
    scale : float
        Divisor of `weight_magnitude_with_scale`.
    seed : int
        Of what is drawn.
    positive : bool
        Whether the sign of a score says what is kept.
    scratch : Scratch
        Memory to reuse.
    """
    by_name = {unit.name: unit for unit in units}
    for unit, (share, _) in zip(units, shares, strict=True):
        start = initial_scores(
            init,
            unit.saliency(weights),
            unit.fans(encoder),
            generator_of(seed, unit.name),
            share,
            scale,
            scratch,
        )
        if positive:
            start = positive_where_kept(start, share)
        scores[unit.name].copy_(start)
    if init not in RANKED:
        return
    for names in together:
        if len(names) > 1:
            saliencies = [by_name[name].saliency(weights) for name in names]
            pool = [scores[name] for name in names]
            rank_together(init, pool, saliencies, scratch)
