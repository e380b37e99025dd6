"""What gets a score: each weight, or each channel and head, and how many go.

A unit is one score tensor: a linear layer with one score for each weight, or
a part of a transformer block with one score for each feed-forward channel
(a row of fc1 with a column of fc2) or attention head (rows of q, k and v
with columns of out). The score of a group is a gate on what the group puts
out: its gradient is the sum over its columns. Biases need no mask, since what
a removed row gives meets a removed column. Must not touch the encoder.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s3router.errors import SettingError
from s3router.masks.rules import Pattern, check_sparsity, removed_count
from s3router.masks.targets import Block, find_blocks

_CHANNELS = {"fc1": "rows", "fc2": "columns"}
_HEADS = {"q": "rows", "k": "rows", "v": "rows", "out": "columns"}

Sparsity = float | Mapping[str | int, float]


class Share(NamedTuple):
    """The sparsity of a unit, and the key of the mapping that gave it."""

    sparsity: float
    key: str | int | None


@dataclass(frozen=True)
class Unit:
    """One score tensor, and the weights for which it speaks.

    Arguments
    ---------
    name : str
        Name of the linear layer, or of the part of the block.
    part : str or None
        `attention`, `feed_forward`, or None outside of known blocks.
    block : int or None
        Index of the block.
    members : dict
        Name of each linear layer to its layout: `entries`, `rows`,
        `columns`.
    groups : int
        Number of scores where the layout is not `entries`, else 0.
    """

    name: str
    part: str | None
    block: int | None
    members: dict[str, str]
    groups: int = 0

    def saliency(self, matrices: Mapping[str, Tensor]) -> Tensor:
        """Return the matrix, or the norm of what each group has in all.

        Arguments
        ---------
        matrices : mapping
            By linear layer, `(out, in)`: its weight, or another measure of
            how much each weight matters.

        Returns
        -------
        torch.Tensor
            `(out, in)` signed, or `(groups,)` at least 0; float32.
        """
        if not self.groups:
            return matrices[self.name].detach().float()
        squares = 0
        for name, layout in self.members.items():
            matrix = matrices[name].detach().float()
            rows = matrix if layout == "rows" else matrix.t()
            squares = squares + rows.reshape(self.groups, -1).square().sum(1)
        return torch.sqrt(squares)

    def fans(self, encoder: nn.Module) -> tuple[int, int]:
        """Return inputs and outputs of the (first) linear layer."""
        first = encoder.get_submodule(next(iter(self.members)))
        return first.in_features, first.out_features


def plan_units(
    encoder: nn.Module, names: Sequence[str], structured: bool
) -> list[Unit]:
    """Divide linear layers into units.

    Arguments
    ---------
    encoder : torch.nn.Module
        The encoder.
    names : sequence of str
        Linear layers that are to be masked.
    structured : bool
        Whether whole channels and heads are scored.

    Returns
    -------
    list of Unit
        In order of the encoder.

    Raises
    ------
    SettingError
        If `structured` is asked for a layer without its partners.
    """
    blocks = find_blocks(encoder)
    if structured:
        return _structured(encoder, blocks, list(names))
    places = {
        name: (part, block.index)
        for block in blocks
        for part in ("attention", "feed_forward")
        for name in block.linears(part)
    }
    return [
        Unit(name, *places.get(name, (None, None)), {name: "entries"})
        for name in names
    ]


def _structured(
    encoder: nn.Module, blocks: list[Block], names: list[str]
) -> list[Unit]:
    units, left = [], set(names)
    for block in blocks:
        for part, linears, layouts in (
            ("attention", block.attention, _HEADS),
            ("feed_forward", block.feed_forward, _CHANNELS),
        ):
            wanted = left & set(linears.values())
            if not wanted:
                continue
            missing = sorted(set(linears.values()) - wanted)
            if missing:
                raise SettingError(
                    f"pattern structured: {sorted(wanted)[0]} can only be "
                    f"masked together with {', '.join(missing)}; add it to "
                    "the targets"
                )
            left -= wanted
            units.append(
                Unit(
                    f"{block.prefix}.{part}",
                    part,
                    block.index,
                    {linears[role]: lay for role, lay in layouts.items()},
                    block.num_heads
                    if part == "attention"
                    else encoder.get_submodule(linears["fc1"]).out_features,
                )
            )
    if left:
        raise SettingError(
            f"pattern structured: {sorted(left)[0]} is not in a transformer "
            "block, so it has no channels or heads; leave it out"
        )
    return units


def check_pattern(
    pattern: Pattern, scope: str, linears: Mapping[str, nn.Linear]
) -> None:
    """Raise SettingError where an n:m pattern cannot be.

    Arguments
    ---------
    pattern : Pattern
        Where zeros may be.
    scope : str
        `layer` or `global`.
    linears : mapping
        The layers that get a mask.
    """
    if pattern.kind != "n:m":
        return
    if scope == "global":
        raise SettingError(
            "scope global: an n:m pattern selects within each group of m "
            "inputs; use scope layer"
        )
    for name, linear in linears.items():
        if linear.in_features % pattern.m:
            raise SettingError(
                f"pattern {pattern.n}:{pattern.m}: the {linear.in_features} "
                f"inputs of {name} are not a multiple of {pattern.m}; leave "
                "it out of the targets"
            )


def blocks_below(
    layers: int | None, units: Sequence[Unit], setting: str
) -> list[Unit]:
    """Return the units of the first blocks.

    Arguments
    ---------
    layers : int or None
        How many blocks, from below; None: all units, those outside of
        blocks too.
    units : sequence of Unit
        The units.
    setting : str
        Where the number comes from, for the message.

    Raises
    ------
    SettingError
        If it is not a number of masked blocks.
    """
    if layers is None:
        return list(units)
    masked = {unit.block for unit in units if unit.block is not None}
    if isinstance(layers, bool) or not 0 < layers <= len(masked):
        raise SettingError(
            f"{setting}: {layers!r} is not a number from 1 to {len(masked)}, "
            "how many blocks of the encoder are masked"
        )
    first = sorted(masked)[:layers]
    return [unit for unit in units if unit.block in first]


def shares(
    sparsity: Sparsity, units: Sequence[Unit], pattern: Pattern
) -> list[Share]:
    """Return the sparsity of each unit, and the key that gave it.

    Arguments
    ---------
    sparsity : float or mapping
        One for all; or by part (`feed_forward`, `attention`); or by index of
        the block (int).
    units : sequence of Unit
        The units.
    pattern : Pattern
        Where zeros may be.

    Returns
    -------
    list of Share
        For each unit its sparsity and its key, None for one for all.

    Raises
    ------
    SettingError
        If a value is not in [0, 1) or not what the pattern fixes, or a key
        is unknown, or a unit has none.

    Warns
    -----
    UserWarning
        If the sparsity of few channels or heads rounds to none removed.

    Example
    -------
    >>> unit = Unit("fc", "feed_forward", 0, {"fc": "entries"})
    >>> shares({"feed_forward": 0.1}, [unit], Pattern("unstructured"))
    [Share(sparsity=0.1, key='feed_forward')]
    """
    found = _by_key(sparsity, units)
    for (share, _), unit in zip(found, units, strict=True):
        fixed = pattern.sparsity
        if fixed is not None and abs(share - fixed) > 1e-6:
            raise SettingError(
                f"sparsity: {share!r} does not fit the pattern "
                f"{pattern.n}:{pattern.m}, which removes {fixed:.6g}; set "
                "sparsity to that"
            )
        if unit.groups and share and not removed_count(share, unit.groups):
            warnings.warn(
                f"sparsity: {share!r} of the {unit.groups} groups of "
                f"{unit.name} rounds to none removed",
                stacklevel=3,
            )
    return found


def _by_key(sparsity: Sparsity, units: Sequence[Unit]) -> list[Share]:
    if not isinstance(sparsity, Mapping):
        value = check_sparsity(sparsity)
        return [Share(value, None) for _ in units]
    values = {
        # JSON, as in results and comparisons, has texts for numbers.
        int(key) if str(key).isdigit() else key: check_sparsity(
            value, f"sparsity of {key!r}"
        )
        for key, value in sparsity.items()
    }
    by_block = bool(values) and all(type(key) is int for key in values)
    keys = [unit.block if by_block else unit.part for unit in units]
    unused = [key for key in values if key not in keys]
    if unused:
        known = sorted({str(key) for key in keys if key is not None})
        raise SettingError(
            f"sparsity: {unused[0]!r} is no part or block that is masked; "
            f"these are {', '.join(known)}"
        )
    for unit, key in zip(units, keys, strict=True):
        if key not in values:
            raise SettingError(
                f"sparsity: nothing is given for {unit.name}; add the key "
                f"{key!r} or leave it out of the targets"
            )
    return [Share(values[key], key) for key in keys]
