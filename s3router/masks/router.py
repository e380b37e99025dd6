"""All masks of one encoder: make, refresh, exchange, fold, report.

A plain object and not a torch Module: DDP would wrap the scores a second
time. Knows nothing of losses, optimizers or files. Source: S3-Router
(Fu et al., NeurIPS 2022), section 3; what is done otherwise: the mask is
selected once for each optimizer step and not sorted anew in every forward,
counts are exact, scores stay float32 under autocast, and channel and head
scores train.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from s3router.errors import (
    SettingError,
    flag,
    one_of,
    positive_number,
    whole_number,
)
from s3router.masks.apply import apply_masks
from s3router.masks.attach import attach, check_plain, detach
from s3router.masks.exchange import as_tensor, check_like
from s3router.masks.init import check_init
from s3router.masks.parametrization import MaskedWeight
from s3router.masks.refresh import follow_columns, pools_of, refresh_masks
from s3router.masks.rules import RULES, Pattern, check_rule
from s3router.masks.select import Workspace
from s3router.masks.start_scores import fill_scores
from s3router.masks.straight_through import SURROGATES
from s3router.masks.targets import resolve_targets
from s3router.masks.units import (
    Sparsity,
    check_pattern,
    plan_units,
    shares,
)

__all__ = ["Router", "apply_masks"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Router:
    """Scored masks on the linear layers of a frozen encoder.

    Freezes every parameter of the encoder, then puts a parametrization on
    the weight of each target. Only the scores can train. The masks are right
    from the start; call `refresh` after every optimizer step.

    Arguments
    ---------
    encoder : torch.nn.Module
        The model with its pre-trained weights in place (a plain checkpoint
        does not fit it any more afterwards). Names are relative to it.
    targets : str or sequence of str
        `feed_forward`, `attention`, `all`, or fnmatch patterns, see
        `s3router.masks.targets`.
    sparsity : float or mapping
        Share removed, in [0, 1); or one for each of `feed_forward` and
        `attention`; or one for each block by its index.
    scope : str
        `layer`: every matrix loses the same share. `global`: one ranking
        over all (with a mapping, over all with the same key; with
        `structured`, one over the channels and one over the heads).
    pattern : str
        `unstructured`; `n:m` as `2:4`, n of m consecutive inputs stay; or
        `structured`, whole feed-forward channels and attention heads.
    init : str
        How scores start, see `s3router.masks.init`.
    init_scale : float
        Divisor for `weight_magnitude_with_scale`.
    surrogate : str
        `identity` or `sigmoid`, see `s3router.masks.straight_through`.
    refresh_every : int
        Select anew every so many optimizer steps.
    seed : int
        Of the starting scores, which also depend on the layer's name, but
        not on the device or on which other layers are targets.
    rule : str
        `top`: the largest |scores| stay, an exact share. `positive`: what is
        above 0 stays; it starts from the same masks (`sparsity` 0: from all
        weights), and how much is removed is then up to training. Only with
        the unstructured pattern and scope `layer`.
    score_dtype : str
        `float32`, or `bfloat16`: scores, their gradients and Adam's moments
        take half the memory, and steps below a 256th of a score are lost.

    Raises
    ------
    SettingError
        If a setting cannot work; nothing has then been changed.

    Example
    -------
    >>> layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
    >>> encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    >>> router = Router(encoder, "feed_forward", sparsity=0.25)
    >>> router.report()[0]["removed"], router.sparsity()
    (32, 0.25)
    >>> router.fold()
    >>> (encoder.layers[0].linear1.weight == 0).sum().item()
    32
    """

    def __init__(
        self,
        encoder: nn.Module,
        targets: str | Sequence[str] = "all",
        sparsity: Sparsity = 0.5,
        scope: str = "layer",
        pattern: str = "unstructured",
        init: str = "weight_rank",
        init_scale: float = 1.0,
        surrogate: str = "identity",
        refresh_every: int = 1,
        seed: int = 0,
        rule: str = "top",
        score_dtype: str = "float32",
    ):
        self.rule = one_of(rule, RULES, "rule")
        self._scope = one_of(scope, ("layer", "global"), "scope")
        self._pattern = Pattern.parse(pattern)
        self._surrogate = one_of(surrogate, SURROGATES, "surrogate")
        self._refresh_every = whole_number("refresh_every", refresh_every)
        whole_number("seed", seed, least=0)
        init = check_init(init, positive_number("init_scale", init_scale))
        dtype = DTYPES[one_of(score_dtype, DTYPES, "score_dtype")]
        self.targets = resolve_targets(encoder, targets)
        structured = self._pattern.kind == "structured"
        self.units = tuple(plan_units(encoder, self.targets, structured))
        self._linears = {n: encoder.get_submodule(n) for n in self.targets}
        for name, linear in self._linears.items():
            check_plain(linear, name)
        check_pattern(self._pattern, self._scope, self._linears)
        check_rule(rule, self._pattern, scope)
        self._shares = shares(sparsity, self.units, self._pattern)
        self._workspace = Workspace()
        self._frozen = False
        self._attached = True

        for parameter in encoder.parameters():
            parameter.requires_grad_(False)
        self._scores: dict[str, nn.Parameter] = {}
        self._masks: dict[str, MaskedWeight] = {}
        self._attach_all(dtype)
        originals = {
            name: linear.parametrizations.weight.original
            for name, linear in self._linears.items()
        }
        fill_scores(
            self._scores,
            self.units,
            self._shares,
            self.ranked_together(),
            encoder,
            originals,
            init=init,
            scale=init_scale,
            seed=seed,
            positive=rule == "positive",
            scratch=self._workspace.scratches(1)[0],
        )
        self._removed: dict[str, int] = {}
        self._select()

    # -- what there is ----------------------------------------------------

    @property
    def frozen(self) -> bool:
        """Whether the masks are fixed: scores do not train, refresh is idle.

        Set it to True after `activate` to keep a mask that came from
        elsewhere, as another language, while a head trains on it.
        """
        return self._frozen

    @frozen.setter
    def frozen(self, value: bool) -> None:
        """Fix the masks, or let the scores train again."""
        self._frozen = flag("frozen", value)
        for scores in self._scores.values():
            scores.requires_grad_(not self._frozen)

    def scores(self) -> dict[str, nn.Parameter]:
        """Return the trained scores, all float32 or all bfloat16.

        Returns
        -------
        dict
            By linear layer, `(out, in)`; for `structured` by part of a
            block, `(channels,)` or `(heads,)`.
        """
        return dict(self._scores)

    def ranked_together(self) -> list[list[str]]:
        """Return the names of scores in groups that have one ranking."""
        grouped = self._pattern.kind == "structured"
        pools = pools_of(
            self.units,
            self._shares,
            self._scores,
            self._scores,
            self._scope,
            grouped,
        )
        return [pool.names for pool in pools]

    def masks(self) -> dict[str, Tensor]:
        """Return the live masks; clone them to keep their present values.

        Returns
        -------
        dict
            By linear layer: bool `(out, in)`, True where kept.
        """
        return {name: mask.mask for name, mask in self._masks.items()}

    def report(self) -> list[dict[str, Any]]:
        """Return, for each masked layer, what its mask removes.

        Returns
        -------
        list of dict
            `name`, `removed`, `total` (weights) and `sparsity`.
        """
        rows = []
        for name, mask in self._masks.items():
            removed, total = self._removed[name], mask.mask.numel()
            share = removed / total
            row = {"name": name, "removed": removed, "total": total}
            rows.append({**row, "sparsity": share})
        return rows

    def sparsity(self) -> float:
        """Return the share of all masked weights that is removed, as is."""
        return sum(self._removed.values()) / self._total()

    # -- training ---------------------------------------------------------

    def refresh(self, step: int | None = None) -> float:
        """Select the masks anew from the scores.

        Arguments
        ---------
        step : int or None
            Optimizer steps done; where it is not a multiple of
            `refresh_every` nothing happens. None always selects.

        Returns
        -------
        float
            Share of all mask entries that flipped; 0.0 when skipped.

        Raises
        ------
        SettingError
            If the masks are off the encoder, or scores are of another dtype
            (as after `encoder.half()`: use autocast instead).
        VerificationError
            If a score is NaN.
        """
        self._check_attached("refresh")
        if self._frozen or (step is not None and step % self._refresh_every):
            return 0.0
        return self._select() / self._total()

    def set_sparsity(self, sparsity: Sparsity) -> None:
        """Change the sparsity; it takes effect at the next `refresh`.

        Arguments
        ---------
        sparsity : float or mapping
            As for the constructor.

        Raises
        ------
        SettingError
            Under the rule `positive`, which has no share to change.
        """
        if self.rule == "positive":
            raise SettingError(
                "rule positive: the scores alone decide what is removed"
            )
        self._shares = shares(sparsity, self.units, self._pattern)

    # -- exchange ---------------------------------------------------------

    @torch.no_grad()
    def activate(self, masks: Mapping[str, Tensor | np.ndarray]) -> None:
        """Overwrite all masks in place, as to switch the language.

        The scores stay, so the next `refresh` selects from them again unless
        `frozen` is set.

        Arguments
        ---------
        masks : mapping
            By linear layer: bool `(out, in)`. Exactly the layers that are
            masked.

        Raises
        ------
        MismatchError
            If a name is missing or unknown, or a shape or dtype differs;
            nothing has then been changed.
        """
        self._check_attached("activate")
        live = self.masks()
        new = {name: as_tensor(mask) for name, mask in masks.items()}
        check_like(new, live, "mask")
        for name, mask in live.items():
            mask.copy_(new[name])
        self._recount()

    def state_dict(self) -> dict[str, Tensor]:
        """Return scores and masks, for a checkpoint.

        Returns
        -------
        dict
            `scores.<name>`, of the scores' dtype, and `masks.<name>` bool;
            live tensors, as `torch.nn.Module.state_dict` returns them.
        """
        state = {f"scores.{n}": s.detach() for n, s in self._scores.items()}
        state |= {f"masks.{n}": mask for n, mask in self.masks().items()}
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back, bit for bit, what `state_dict` returned.

        Arguments
        ---------
        state : mapping
            Exactly the names, shapes and dtypes of `state_dict`.

        Raises
        ------
        MismatchError
            If anything differs; nothing has then been changed.
        """
        live = self.state_dict()
        check_like(state, live, "router state")
        for name, tensor in live.items():
            tensor.copy_(state[name])
        self._recount()

    # -- the end ----------------------------------------------------------

    def fold(self) -> None:
        """Leave weight x mask as the weights; the layers are plain again."""
        self._detach(fold=True)

    def remove(self) -> None:
        """Take the masks off; the weights are those from before."""
        self._detach(fold=False)

    # -- inside -----------------------------------------------------------

    def _attach_all(self, dtype: torch.dtype) -> None:
        """Put masks and scores, yet without values, on the layers.

        What stays is allocated before anything that comes and goes: that
        lies behind it in memory then, and is given back to the system.
        """
        for unit in self.units:
            weight = self._linears[next(iter(unit.members))].weight
            shape = (unit.groups,) if unit.groups else weight.shape
            empty = torch.empty(shape, dtype=dtype, device=weight.device)
            scores = self._scores[unit.name] = nn.Parameter(empty)
            for name, layout in unit.members.items():
                linear = self._linears[name]
                shape = (linear.out_features, linear.in_features)
                mask = MaskedWeight(
                    scores, shape, self._surrogate, layout, self.rule
                )
                attach(linear, name, mask)
                self._masks[name] = mask

    def _detach(self, fold: bool) -> None:
        self._check_attached("fold" if fold else "remove")
        for mask in self._masks.values():
            mask.follows = False
        for linear in self._linears.values():
            detach(linear, fold)
        self._attached = False

    def _check_attached(self, what: str) -> None:
        if not self._attached:
            raise SettingError(
                f"router.{what}: the masks were folded or removed already"
            )

    def _select(self) -> int:
        """Overwrite all masks; return the number of flipped entries."""
        selected = refresh_masks(
            self.units,
            self._shares,
            self._scores,
            self._masks,
            self._scope,
            self._pattern,
            self._workspace,
            self.rule,
        )
        self._removed = {name: selected[name].removed for name in self._masks}
        return sum(one.flipped for one in selected.values())

    def _recount(self) -> None:
        """Look at masks that were not selected here but came as they are."""
        for name, mask in self.masks().items():
            kept = int(torch.count_nonzero(mask))
            self._removed[name] = mask.numel() - kept
        for unit in self.units:
            follow_columns(unit, self._masks)

    def _total(self) -> int:
        return sum(mask.mask.numel() for mask in self._masks.values())
