"""PARP: prune, adjust, re-prune.

    W <- m(W) * W             every n updates, m keeps the largest |W|
    W <- W - rate * Adam(d loss / d W)      at every update, for all W

Source: Lai et al. (NeurIPS 2021), section 3, algorithm 1; as its code does it:

1. The initial mask removes the smallest |weights|, of the pre-trained model
   (MPI), of a fine-tuned one (OMP) or of another language's subnetwork.
2. Removed weights become 0, no mask stays: fine-tuning is dense, and they may
   grow back.
3. Every n updates the mask is made anew from the weights as they are.

PARP-P starts from a lower sparsity, which rises linearly, re-pruning by
re-pruning, to the target. What is done otherwise than in the code: there the
saved model has grown for up to n updates since it was last pruned; here what
is evaluated and saved is pruned to the target, always. Biases are left alone,
as under every method here. The code's sparsity rises until the end of
training, which is `ramp_share: 1.0`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from s3router.errors import SettingError, whole_number
from s3router.masks.ranking import Ranking
from s3router.masks.rules import check_sparsity
from s3router.masks.units import Sparsity
from s3router.methods.base import Method, check_masking
from s3router.methods.start import ranked_start
from s3router.methods.tunable import free_weights, restore_weights


class PARP(Method):
    """Tune all weights; zero the smallest ones now and then.

    Arguments
    ---------
    targets : str or list of str
        Which linear layers are pruned.
    sparsity : float or mapping
        Share removed in the end, in [0, 1); or by part or block, but not
        with `initial_sparsity`.
    scope : str
        `global`, one ranking over all targets, as in PARP; or `layer`.
    pattern : str
        `unstructured`, `n:m` or `structured`.
    start_mask : str, optional
        Folder of a subnetwork of this encoder whose weights, times its mask
        if it has one, are ranked for the first mask; None ranks the
        pre-trained weights.
    reprune_every : int
        Optimizer steps between two prunings.
    initial_sparsity : float, optional
        Where the sparsity starts (PARP-P), in [0, 1) and not above
        `sparsity`, which is one number then; None: at `sparsity`.
    ramp_share : float
        Share of all steps in which it rises to the target, in (0, 1].

    Raises
    ------
    SettingError
        If a setting cannot be, whatever the encoder is.
    """

    name = "parp"
    changes_weights = True

    def __init__(
        self,
        targets: str | Sequence[str] = "all",
        sparsity: Sparsity = 0.5,
        scope: str = "global",
        pattern: str = "unstructured",
        start_mask: str | None = None,
        reprune_every: int = 50,
        initial_sparsity: float | None = None,
        ramp_share: float = 0.5,
    ):
        whole_number("reprune_every", reprune_every)
        _check_share(ramp_share)
        if initial_sparsity is not None:
            _check_ramp(sparsity, initial_sparsity, pattern)
        check_masking(targets, sparsity, scope, pattern)
        self.targets = targets
        self.final = sparsity
        self.scope = scope
        self.pattern = pattern
        self.start_mask = start_mask
        self.reprune_every = reprune_every
        self.initial = initial_sparsity
        self.ramp_share = ramp_share
        self._tuned: dict[str, nn.Parameter] = {}
        self._pruned: dict[str, nn.Parameter] = {}
        self._ramp_steps = 0
        # What has grown back, for as long as the encoder is without it.
        self._grown: dict[str, Tensor] = {}

    def prepare(self, encoder: nn.Module) -> None:
        """Zero what the initial mask removes; free all weights."""
        self.ranking = Ranking(
            encoder, self.targets, self.final, self.scope, self.pattern
        )
        names = self.ranking.targets
        self._pruned = {n: encoder.get_submodule(n).weight for n in names}
        sparsity = self.sparsity_at(0)
        if self.start_mask is None:
            masks = self.ranking.masks(self._live(), sparsity)
        else:
            masks = ranked_start(
                self.start_mask, encoder, self.ranking, sparsity
            )
        self._zero(masks)
        self._tuned = free_weights(encoder)

    def plan(self, steps: int) -> None:
        """Lay out the rise of the sparsity.

        Arguments
        ---------
        steps : int
            Optimizer steps there will be in all.

        Raises
        ------
        SettingError
            If it cannot reach its target in so many steps.
        """
        if steps < self.reprune_every:
            raise SettingError(
                f"parp: reprune_every is {self.reprune_every}, but there are "
                f"{steps} steps: it would never prune again; lower it"
            )
        if self.initial is None:
            return
        self._ramp_steps = int(self.ramp_share * steps)
        if self._ramp_steps < self.reprune_every:
            raise SettingError(
                f"parp: sparsity would rise from {self.initial} to "
                f"{self.final} within ramp_share {self.ramp_share} of "
                f"{steps} steps, but is changed every {self.reprune_every} "
                "steps only: it would never get there; lower reprune_every"
            )

    def sparsity_at(self, step: int) -> Sparsity:
        """Return the sparsity to which a pruning after a step prunes."""
        if self.initial is None:
            return self.final
        prunings = max(1, self._ramp_steps // self.reprune_every)
        done = min(1.0, step // self.reprune_every / prunings)
        return self.initial + done * (self.final - self.initial)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return all weights behind the front end as the group `weights`."""
        return {"weights": list(self._tuned.values())}

    def after_step(self, step: int) -> dict[str, float]:
        """Prune again if it is time; report how much of the mask is new."""
        if step % self.reprune_every:
            return {}
        sparsity = self.sparsity_at(step)
        masks = self.ranking.masks(self._live(), sparsity)
        # What was 0 and is no longer has grown back.
        grown = sum(
            int(((self._pruned[n] != 0) & ~mask).sum())
            for n, mask in masks.items()
        )
        self._zero(masks)
        total = sum(mask.numel() for mask in masks.values())
        return {"sparsity": sparsity, "zeroed": grown / total}

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Prune to the target for as long as is evaluated."""
        masks = self.masks()
        self._grown = {n: w.detach().clone() for n, w in self._pruned.items()}
        self._zero(masks)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self._pruned.items():
                    weight.copy_(self._grown[name])
            self._grown = {}

    def masks(self) -> dict[str, Tensor]:
        """Return the masks of the weights as they are, of target sparsity."""
        return self.ranking.masks(self._live())

    def weights(self) -> dict[str, Tensor]:
        """Return every tuned weight, pruned to the target."""
        masks = self.masks()
        return {
            name: parameter.detach() * masks[owner]
            if (owner := name.removesuffix(".weight")) in masks
            else parameter.detach()
            for name, parameter in self._tuned.items()
        }

    def describe(self) -> dict:
        """Return the method's name and its settings."""
        return {
            "method": self.name,
            "targets": self.targets,
            "sparsity": self.final,
            "scope": self.scope,
            "pattern": self.pattern,
            "reprune_every": self.reprune_every,
            "initial_sparsity": self.initial,
            "ramp_share": self.ramp_share,
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights in training, with what has grown back."""
        live = {n: p.detach() for n, p in self._tuned.items()}
        return live | {f"{n}.weight": w for n, w in self._grown.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the weights bit for bit."""
        restore_weights(self._tuned, state)

    def _live(self) -> dict[str, Tensor]:
        return {n: weight.detach() for n, weight in self._pruned.items()}

    @torch.no_grad()
    def _zero(self, masks: Mapping[str, Tensor]) -> None:
        for name, weight in self._pruned.items():
            weight.mul_(masks[name].to(weight.device))


def _check_share(share: float) -> None:
    number = isinstance(share, int | float) and not isinstance(share, bool)
    if not number or not 0 < share <= 1:
        raise SettingError(f"ramp_share is {share!r}, but must be in (0, 1]")


def _check_ramp(final: Sparsity, initial: float, pattern: str) -> None:
    if pattern not in ("unstructured", "structured"):
        raise SettingError(
            f"parp: the pattern {pattern} fixes the sparsity, so it cannot "
            "rise; leave initial_sparsity out"
        )
    if isinstance(final, Mapping):
        raise SettingError(
            f"sparsity is {dict(final)!r}, but with initial_sparsity it rises "
            "to one number for all targets; give one, or leave "
            "initial_sparsity out"
        )
    check_sparsity(initial, "initial_sparsity")
    if not initial <= check_sparsity(final):
        raise SettingError(
            f"parp: initial_sparsity {initial} is above sparsity {final}; "
            "progressive pruning only rises"
        )
