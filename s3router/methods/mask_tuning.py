"""Mask tuning: frozen weights, one trained score per weight, keep the top.

    W_eff = m(s) * W,  m keeps the largest |s|
    s <- s - rate * Adam(sign(s) * W * d loss / d W_eff)

Source: S3-Router (Fu et al., NeurIPS 2022), section 3. W stays frozen; the
gradient passes the selection straight through.
"""

import warnings
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from s3router.errors import (
    SettingError,
    flag,
    one_of,
    positive_number,
    whole_number,
)
from s3router.formats.subnetwork import Subnetwork
from s3router.masks.apply import put_weights
from s3router.masks.init import check_init
from s3router.masks.router import DTYPES, Router
from s3router.masks.rules import RULES, Pattern, check_rule
from s3router.masks.straight_through import SURROGATES
from s3router.masks.transfer import start_from
from s3router.masks.units import blocks_below
from s3router.methods.base import Method, check_masking
from s3router.methods.start import load_start, start_masks
from s3router.methods.tunable import free_weights, restore_weights

#: Of the machine where it was made, and so not of the subnetwork.
_PATHS = ("start_mask", "start_weights")


class MaskTuning(Method):
    """Train scores; the mask keeps the connections with the largest ones.

    Arguments
    ---------
    targets : str or list of str
        Which linear layers are maskable: `feed_forward`, `attention`, `all`,
        or fnmatch patterns on module names.
    sparsity : float or mapping
        Share of the maskable weights removed, in [0, 1); or one share each
        for `feed_forward` and `attention`.
    scope : str
        `layer` (every matrix keeps the same share) or `global`.
    pattern : str
        `unstructured`, `n:m` as in `2:4`, or `structured`.
    init : str
        How scores start; `weight_rank` starts from the magnitude mask.
    init_scale : float
        Divisor of the initial scores, where the init takes one.
    surrogate : str
        `identity` or `sigmoid`: the gradient of the selection.
    refresh_every : int
        Optimizer steps between two selections.
    seed : int
        Seed of random score initialisations.
    rule : str
        `top`: the share asked for is removed. `positive`: what has a score
        above 0 stays, starting from `sparsity`; how sparse the result is, is
        found out (a threshold instead of a rank, as in Piggyback, Mallya et
        al., ECCV 2018, section 3).
    score_dtype : str
        `float32`, or `bfloat16`: half the memory for scores, gradients and
        Adam's moments, see `s3router.masks.router.Router`.
    start_mask : str, optional
        Folder of a subnetwork of this encoder, as of another language, from
        whose mask scores start (mask transfer).
    start_layers : int, optional
        That mask is taken over in so many blocks from below; None: in all.
    start_weights : str, optional
        Folder of a subnetwork whose tuned weights are masked instead of the
        pre-trained ones: with `init: weight_magnitude_with_scale` this is
        S3-Router-P, fine-tune then prune.
    frozen : bool
        Masks stay as they start; the head trains (and the weights, if they
        are told to).
    frozen_layers : int, optional
        Masks of so many blocks from below stay as they start.
    train_weights : bool, optional
        Train the weights together with the scores; None: no.

    Raises
    ------
    SettingError
        If a setting cannot be, whatever the encoder is.
    """

    name = "mask_tuning"

    def __init__(
        self,
        targets: str | Sequence[str] = "feed_forward",
        sparsity: float | Mapping[str, float] = 0.1,
        scope: str = "layer",
        pattern: str = "unstructured",
        init: str = "weight_rank",
        init_scale: float = 1.0,
        surrogate: str = "identity",
        refresh_every: int = 1,
        seed: int = 0,
        rule: str = "top",
        score_dtype: str = "float32",
        start_mask: str | None = None,
        start_layers: int | None = None,
        start_weights: str | None = None,
        frozen: bool = False,
        frozen_layers: int | None = None,
        train_weights: bool | None = None,
    ):
        self._settings = {
            "targets": targets,
            "sparsity": sparsity,
            "scope": scope,
            "pattern": pattern,
            "init": init,
            "init_scale": init_scale,
            "surrogate": surrogate,
            "refresh_every": refresh_every,
            "seed": seed,
            "rule": rule,
            "score_dtype": score_dtype,
        }
        self._start = {
            "start_mask": start_mask,
            "start_layers": start_layers,
            "start_weights": start_weights,
            "frozen": frozen,
            "frozen_layers": frozen_layers,
            "train_weights": False if train_weights is None else train_weights,
        }
        check_masking(targets, sparsity, scope, pattern)
        _check_scores(self._settings)
        _check_start(self._start, scope)
        self.changes_weights = bool(train_weights or start_weights)
        self._router: Router | None = None
        self._weights: dict[str, Tensor] = {}

    @property
    def router(self) -> Router:
        """The masks in place; only after `prepare`."""
        if self._router is None:
            raise SettingError("mask tuning: call prepare(encoder) first")
        return self._router

    def prepare(self, encoder: nn.Module) -> None:
        """Freeze the encoder and put scored masks on its targets."""
        start = self._start
        masks = None
        if start["start_mask"] is not None:
            masks = load_start(start["start_mask"], encoder)
        if start["start_weights"] is not None:
            self._put_weights(encoder, start["start_weights"])
        tuned = free_weights(encoder) if start["train_weights"] else {}
        self._router = Router(encoder, **self._settings)
        for name, weight in tuned.items():
            self._weights[name] = weight.requires_grad_(True)
        if masks is not None:
            self._take_over(masks)
        self._freeze_masks()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return what trains of the groups `scores` and `weights`."""
        scores = self.router.scores().values()
        groups = {"scores": [s for s in scores if s.requires_grad]}
        if self._start["train_weights"]:
            groups["weights"] = list(self._weights.values())
        return {name: group for name, group in groups.items() if group}

    def after_step(self, step: int) -> dict[str, float]:
        """Select anew; report the share of the mask that flipped."""
        flips = self.router.refresh(step)
        return {"mask_flips": flips, "sparsity": self.router.sparsity()}

    def masks(self) -> dict[str, Tensor]:
        """Return the mask of every target, True where kept."""
        return self.router.masks()

    def weights(self) -> dict[str, Tensor]:
        """Return the weights that are not the encoder's own, masked."""
        masks = self.masks()
        return {
            name: weight.detach() * masks[owner]
            if (owner := name.removesuffix(".weight")) in masks
            else weight.detach()
            for name, weight in self._weights.items()
        }

    def describe(self) -> dict:
        """Return the method's name and all its settings."""
        start = {k: v for k, v in self._start.items() if k not in _PATHS}
        return {"method": self.name, **self._settings, **start}

    def state_dict(self) -> dict[str, Tensor]:
        """Return scores and masks, and weights if they train."""
        state = self.router.state_dict()
        if self._start["train_weights"]:
            for name, weight in self._weights.items():
                state[f"weights.{name}"] = weight.detach()
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore scores, masks and weights bit for bit."""
        if self._start["train_weights"]:
            tuned = {
                name.removeprefix("weights."): tensor
                for name, tensor in state.items()
                if name.startswith("weights.")
            }
            restore_weights(self._weights, tuned)
            state = {n: t for n, t in state.items() if n[8:] not in tuned}
        self.router.load_state_dict(state)

    # -- inside -----------------------------------------------------------

    def _put_weights(self, encoder: nn.Module, path: str) -> None:
        start = load_start(path, encoder)
        if not start.weights:
            raise SettingError(
                f"start_weights: the subnetwork {path} has no tuned weights; "
                f"it was made by {start.config.get('method')!r}"
            )
        put_weights(encoder, start.weights)
        live = dict(encoder.named_parameters())
        self._weights = {name: live[name] for name in start.weights}

    def _take_over(self, start: Subnetwork) -> None:
        path = self._start["start_mask"]
        masks = start_masks(start, self.router.targets, path)
        if self._start["frozen"] and self._start["start_layers"] is None:
            # Just that mask, whatever share it keeps.
            self.router.activate(masks)
        else:
            start_from(self.router, masks, self._start["start_layers"])

    def _freeze_masks(self) -> None:
        self.router.frozen = self._start["frozen"]
        layers = self._start["frozen_layers"]
        if layers is None:
            return
        scores = self.router.scores()
        for unit in blocks_below(layers, self.router.units, "frozen_layers"):
            scores[unit.name].requires_grad_(False)


def _check_scores(settings: Mapping) -> None:
    """Refuse now what the router would refuse once there is an encoder."""
    one_of(settings["surrogate"], SURROGATES, "surrogate")
    one_of(settings["score_dtype"], DTYPES, "score_dtype")
    rule = one_of(settings["rule"], RULES, "rule")
    check_rule(rule, Pattern.parse(settings["pattern"]), settings["scope"])
    whole_number("refresh_every", settings["refresh_every"])
    whole_number("seed", settings["seed"], least=0)
    scale = positive_number("init_scale", settings["init_scale"])
    with warnings.catch_warnings():
        # The router warns; once is enough.
        warnings.simplefilter("ignore")
        check_init(settings["init"], scale)


def _check_start(start: Mapping[str, object], scope: str) -> None:
    """Refuse settings that would do nothing, or something else."""
    for setting in ("frozen", "train_weights"):
        flag(setting, start[setting])
    for setting in ("start_layers", "frozen_layers"):
        layers = start[setting]
        # Which whole numbers can be is told with the encoder's blocks.
        if layers is not None and not isinstance(layers, int):
            whole_number(setting, layers)
    if start["start_layers"] is not None and start["start_mask"] is None:
        raise SettingError(
            "start_layers says how far start_mask is taken over, but there is "
            "no start_mask; give one, or leave it out"
        )
    if start["frozen_layers"] is not None and scope == "global":
        raise SettingError(
            "frozen_layers: with scope global one ranking decides in all "
            "blocks, so none can stay as it is; use scope layer"
        )
