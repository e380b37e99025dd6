"""Overwrite the masks of all units by what their scores say now.

Between the units (what has a score) and the selection (which only sees
tensors). Must not hold state.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from s3router.errors import SettingError
from s3router.masks.parametrization import (
    MaskedWeight,
    written_outside_torch,
)
from s3router.masks.rules import Pattern, removed_count
from s3router.masks.select import (
    Pool,
    Workspace,
    select,
    select_n_of_m,
    select_positive,
)
from s3router.masks.select_numpy import Selected
from s3router.masks.units import Share, Unit


def refresh_masks(
    units: Sequence[Unit],
    shares: Sequence[Share],
    scores: Mapping[str, Tensor],
    masks: Mapping[str, MaskedWeight],
    scope: str,
    pattern: Pattern,
    workspace: Workspace,
    rule: str = "top",
) -> dict[str, Selected]:
    """Select, and write the masks in place.

    Arguments
    ---------
    units : sequence of Unit
        What has a score.
    shares : sequence of Share
        For each unit its sparsity, see `s3router.masks.units.shares`.
    scores : mapping
        By unit: float32 or bfloat16.
    masks : mapping
        By linear layer.
    scope : str
        `layer` or `global`.
    pattern : Pattern
        Where zeros may be.
    workspace : Workspace
        Memory to reuse.
    rule : str
        `top`, or `positive`, which has no use for `shares`.

    Returns
    -------
    dict
        By linear layer: entries flipped, and entries removed.

    Raises
    ------
    SettingError
        If scores are of another dtype.
    VerificationError
        If a score is NaN.
    """
    grouped = pattern.kind == "structured"
    keeps = {
        unit.name: torch.zeros_like(scores[unit.name], dtype=torch.bool)
        if grouped
        else masks[unit.name].mask
        for unit in units
    }
    pools = pools_of(units, shares, scores, keeps, scope, grouped)
    if rule == "positive":
        selected = select_positive(pools)
    elif pattern.kind == "n:m":
        selected = select_n_of_m(pools, pattern, workspace)
    else:
        selected = select(pools, workspace)
    for mask in masks.values():
        written_outside_torch(mask.mask)
    if grouped:
        return _write_groups(units, keeps, masks)
    return {
        name: one
        for pool, ones in zip(pools, selected, strict=True)
        for name, one in zip(pool.names, ones, strict=True)
    }


def pools_of(
    units: Sequence[Unit],
    shares: Sequence[Share],
    scores: Mapping[str, Tensor],
    keeps: Mapping[str, Tensor],
    scope: str,
    grouped: bool,
) -> list[Pool]:
    """Return what is ranked together, on the tensors as they are now.

    Arguments
    ---------
    units : sequence of Unit
        What has a score.
    shares : sequence of Share
        For each unit its sparsity.
    scores, keeps : mapping
        By unit: float32 or bfloat16, and bool of the same shape, which a
        selection overwrites.
    scope : str
        `layer` or `global`.
    grouped : bool
        Whether scores are of channels and heads.

    Returns
    -------
    list of Pool
        Every unit is in one of them.

    Raises
    ------
    SettingError
        If scores are of another dtype.
    """
    pools: dict[object, Pool] = {}
    of_pool: dict[object, float] = {}
    for unit, share in zip(units, shares, strict=True):
        score = scores[unit.name]
        if score.dtype not in (torch.float32, torch.bfloat16):
            raise SettingError(
                f"the scores of {unit.name} are {score.dtype}: they must stay "
                "float32 (or bfloat16, by score_dtype); use autocast instead "
                "of converting the encoder"
            )
        # Channels are never ranked against heads: their scores speak for
        # very different numbers of weights.
        together = (share.key, unit.part if grouped else None)
        if scope == "layer":
            together = unit.name
        pool = pools.setdefault(together, Pool([], [], [], 0))
        of_pool[together] = share.sparsity
        pool.names.append(unit.name)
        pool.scores.append(score)
        pool.masks.append(keeps[unit.name])
    for together, pool in pools.items():
        total = sum(score.numel() for score in pool.scores)
        pool.removed = removed_count(of_pool[together], total)
    return list(pools.values())


def _write_groups(
    units: Sequence[Unit],
    keeps: Mapping[str, Tensor],
    masks: Mapping[str, MaskedWeight],
) -> dict[str, Selected]:
    counts = {
        name: masks[name].write_groups(keeps[unit.name])
        for unit in units
        for name in unit.members
    }
    for unit in units:
        for name, layout in unit.members.items():
            masks[name].follows = layout == "rows"
    # One wait for the device and not two for each matrix.
    numbers = torch.stack(list(counts.values())).tolist()
    return {
        name: Selected(*pair)
        for name, pair in zip(counts, numbers, strict=True)
    }


def follow_columns(unit: Unit, masks: Mapping[str, MaskedWeight]) -> None:
    """Let the rows of a unit follow its columns if all masks agree.

    Arguments
    ---------
    unit : Unit
        A unit whose masks came from elsewhere and may be of any form.
    masks : mapping
        By linear layer.
    """
    if not unit.groups:
        return
    members = [masks[name] for name in unit.members]
    keep = members[0].groups(unit.groups)
    agree = all(member.is_made_of(keep) for member in members)
    for member in members:
        member.follows = agree and member.layout == "rows"
