"""Start from the mask of another subnetwork, and train on from there.

Scores keep their sizes; who has which is exchanged, so that what the other
mask keeps is ranked above what it removes. Must not read files.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from s3router.masks.exchange import check_like
from s3router.masks.router import Router
from s3router.masks.units import Unit, blocks_below


def scores_for(scores: Tensor, keep: Tensor) -> Tensor:
    """Return scores that rank as a mask does.

    Arguments
    ---------
    scores : torch.Tensor
        Any shape.
    keep : torch.Tensor
        bool, of the same shape.

    Returns
    -------
    torch.Tensor
        The same sizes |score|, the largest where `keep` is True; within what
        is kept, and within what is removed, the order is that of `scores`.
        Every entry has the sign that it had.

    Example
    -------
    >>> keep = torch.tensor([False, True, True, False])
    >>> scores_for(torch.tensor([4.0, -3.0, 2.0, 1.0]), keep)
    tensor([ 2., -4.,  3.,  1.])
    """
    sizes = scores.abs().flatten()
    ranked = sizes.sort().values
    removed = ~keep.flatten()
    below = int(removed.sum())
    new = torch.empty_like(sizes)
    for chosen, values in (
        (removed, ranked[:below]),
        (~removed, ranked[below:]),
    ):
        order = sizes[chosen].argsort(stable=True)
        part = torch.empty_like(values)
        part[order] = values
        new[chosen] = part
    signs = torch.where(scores < 0, -1.0, 1.0)
    return new.view_as(scores) * signs


@torch.no_grad()
def start_from(
    router: Router, masks: Mapping[str, Tensor], layers: int | None = None
) -> None:
    """Let the scores of a router rank as masks from elsewhere do.

    Where those keep another share than the router, the router's share is
    taken: of what they keep first, then of the rest.

    Arguments
    ---------
    router : Router
        Not yet trained.
    masks : mapping
        By linear layer: bool `(out, in)`; those of the router's targets.
    layers : int, optional
        Only in so many blocks from below; None: everywhere.

    Raises
    ------
    MismatchError
        If a mask is missing, or of another shape.
    SettingError
        If `layers` is not a number of blocks.
    """
    check_like(masks, router.masks(), "mask")
    live = router.scores()
    for unit in blocks_below(layers, router.units, "start_layers"):
        scores = live[unit.name]
        keep = _kept(unit, masks).to(scores.device)
        if router.rule == "positive":
            sizes = scores.abs()
            # A kept score of 0 would not be kept.
            sizes.clamp_(min=float(sizes[sizes > 0].min()))
            scores.copy_(torch.where(keep, sizes, -sizes))
        else:
            scores.copy_(scores_for(scores, keep))
    router.refresh()


def _kept(unit: Unit, masks: Mapping[str, Tensor]) -> Tensor:
    """Return what a unit keeps: its entries, or its channels or heads."""
    if not unit.groups:
        return masks[unit.name]
    kept = torch.ones(unit.groups, dtype=torch.bool)
    for name, layout in unit.members.items():
        rows = masks[name] if layout == "rows" else masks[name].t()
        # A channel is kept where anything of it is, in each of its matrices.
        kept &= rows.reshape(unit.groups, -1).any(1)
    return kept
