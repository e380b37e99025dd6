"""Start from the mask of another subnetwork, and train on from there.

Scores keep their sizes; who has which is exchanged, so that what the other
mask keeps is ranked above what it removes. Must not read files.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from s3router.errors import SettingError
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
        If `layers` is not a number of blocks, or one ranking is over all.
    """
    check_like(masks, router.masks(), "mask")
    live = router.scores()
    below = blocks_below(layers, router.units, "start_layers")
    units = {unit.name: unit for unit in below}
    together = router.ranked_together()
    if layers is not None and any(len(names) > 1 for names in together):
        raise SettingError(
            "start_layers: with scope global one ranking decides in all "
            "blocks; leave it out, or use scope layer"
        )
    for names in together:
        chosen = [name for name in names if name in units]
        if not chosen:
            continue
        scores = [live[name] for name in chosen]
        keeps = [
            _kept(units[name], masks).to(live[name].device) for name in chosen
        ]
        if router.rule == "positive":
            _make_positive(scores[0], keeps[0])
        else:
            _exchange(scores, keeps)
    router.refresh()


def _make_positive(scores: Tensor, keep: Tensor) -> None:
    """Let the scores of a matrix be above 0 where a mask keeps."""
    sizes = scores.abs()
    # A kept score of 0 would not be kept.
    sizes.clamp_(min=float(sizes[sizes > 0].min()))
    scores.copy_(torch.where(keep, sizes, -sizes))


def _exchange(scores: list[Tensor], keeps: list[Tensor]) -> None:
    """Let the scores of one ranking rank as masks do."""
    new = scores_for(
        torch.cat([one.flatten() for one in scores]),
        torch.cat([one.flatten() for one in keeps]),
    ).split([one.numel() for one in scores])
    for one, part in zip(scores, new, strict=True):
        one.copy_(part.view_as(one))


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
