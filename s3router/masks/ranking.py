"""Masks from a saliency of every weight, without scores that train.

What pruning by magnitude, by Taylor expansion or at random has in common:
rank, and remove an exact number of the lowest. Targets, scopes, patterns and
counts are those of `router.py`. Must not change the encoder.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from s3router.errors import MismatchError, one_of
from s3router.masks.attach import check_plain
from s3router.masks.exchange import check_form
from s3router.masks.refresh import pools_of
from s3router.masks.rules import Pattern
from s3router.masks.select import Workspace, select, select_n_of_m
from s3router.masks.targets import resolve_targets
from s3router.masks.units import (
    Sparsity,
    check_pattern,
    plan_units,
    shares,
)

SCOPES = ("layer", "global")


class Ranking:
    """What is ranked with what, and how much of it is removed.

    Arguments
    ---------
    encoder : torch.nn.Module
        Its targets must be plain linear layers. Names are relative to it.
    targets : str or sequence of str
        See `s3router.masks.targets`.
    sparsity : float or mapping
        Share removed, in [0, 1), as for `Router`.
    scope : str
        `layer` or `global`, as for `Router`.
    pattern : str
        `unstructured`, `n:m` or `structured`.

    Raises
    ------
    SettingError
        If a setting cannot work.

    Example
    -------
    >>> layer = nn.TransformerEncoderLayer(8, 2, 16)
    >>> encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    >>> ranking = Ranking(encoder, "*.linear1", 0.25)
    >>> weight = encoder.layers[0].linear1.weight
    >>> (mask,) = ranking.masks({"layers.0.linear1": weight}).values()
    >>> size = weight.abs()
    >>> int((~mask).sum()), bool(size[~mask].max() < size[mask].min())
    (32, True)
    """

    def __init__(
        self,
        encoder: nn.Module,
        targets: str | Sequence[str] = "all",
        sparsity: Sparsity = 0.5,
        scope: str = "layer",
        pattern: str = "unstructured",
    ):
        self._scope = one_of(scope, SCOPES, "scope")
        self.pattern = Pattern.parse(pattern)
        self.targets = resolve_targets(encoder, targets)
        structured = self.pattern.kind == "structured"
        self._units = plan_units(encoder, self.targets, structured)
        linears = {n: encoder.get_submodule(n) for n in self.targets}
        for name, linear in linears.items():
            check_plain(linear, name)
        check_pattern(self.pattern, self._scope, linears)
        self._shapes = {n: m.weight.shape for n, m in linears.items()}
        self._sparsity = sparsity
        self._workspace = Workspace()
        shares(sparsity, self._units, self.pattern)

    def masks(
        self,
        saliency: Mapping[str, Tensor],
        sparsity: Sparsity | None = None,
    ) -> dict[str, Tensor]:
        """Return new masks that remove what is least salient.

        Arguments
        ---------
        saliency : mapping
            By target: `(out, in)`, any float dtype; its absolute value is
            ranked, for channels and heads the root of the sum of squares.
        sparsity : float or mapping, optional
            Instead of that of the constructor.

        Returns
        -------
        dict
            By target: bool `(out, in)`, True where kept.

        Raises
        ------
        MismatchError
            If a target has no saliency, or one of another shape.
        SettingError
            If the sparsity cannot be.
        VerificationError
            If a saliency is NaN.
        """
        for name, shape in self._shapes.items():
            if name not in saliency:
                raise MismatchError(f"saliency {name!r} is missing")
            given = saliency[name]
            check_form(name, given, shape, given.dtype, "saliency")
        ranked = {
            unit.name: unit.saliency(saliency).contiguous()
            for unit in self._units
        }
        keeps = {
            name: torch.ones_like(values, dtype=torch.bool)
            for name, values in ranked.items()
        }
        asked = self._sparsity if sparsity is None else sparsity
        grouped = self.pattern.kind == "structured"
        pools = pools_of(
            self._units,
            shares(asked, self._units, self.pattern),
            ranked,
            keeps,
            self._scope,
            grouped,
        )
        if self.pattern.kind == "n:m":
            select_n_of_m(pools, self.pattern, self._workspace)
        else:
            select(pools, self._workspace)
        if not grouped:
            return {name: keeps[name] for name in self.targets}
        spread = {
            name: _spread(keeps[unit.name], layout, self._shapes[name])
            for unit in self._units
            for name, layout in unit.members.items()
        }
        return {name: spread[name] for name in self.targets}


def _spread(keep: Tensor, layout: str, shape: torch.Size) -> Tensor:
    """Return the mask of a matrix from one bool for each of its groups."""
    if layout == "rows":
        rows = keep.repeat_interleave(shape[0] // len(keep))
        return rows[:, None].expand(shape).contiguous()
    columns = keep.repeat_interleave(shape[1] // len(keep))
    return columns[None].expand(shape).contiguous()
