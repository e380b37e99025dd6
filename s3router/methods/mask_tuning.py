"""Mask tuning: frozen weights, one trained score per weight, keep the top.

Source: S3-Router (Fu et al., NeurIPS 2022), section 3. The effective weight
is ``m(s) * w``, where ``m`` keeps the weights with the largest ``|s|``; the
gradient passes the selection straight through.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from s3router.errors import SettingError
from s3router.masks.router import Router
from s3router.methods.base import Method


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
        }
        self._router: Router | None = None

    @property
    def router(self) -> Router:
        """The masks in place; only after `prepare`."""
        if self._router is None:
            raise SettingError("mask tuning: call prepare(encoder) first")
        return self._router

    def prepare(self, encoder: nn.Module) -> None:
        """Freeze the encoder and put scored masks on its targets."""
        self._router = Router(encoder, **self._settings)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the scores as the one group `scores`."""
        return {"scores": list(self.router.scores().values())}

    def after_step(self, step: int) -> dict[str, float]:
        """Select anew; report the share of the mask that flipped."""
        flips = self.router.refresh(step)
        return {"mask_flips": flips, "sparsity": self.router.sparsity()}

    def masks(self) -> dict[str, Tensor]:
        """Return the mask of every target, True where kept."""
        return self.router.masks()

    def describe(self) -> dict:
        """Return the method's name and all its settings."""
        return {"method": self.name, **self._settings}

    def state_dict(self) -> dict[str, Tensor]:
        """Return scores and masks."""
        return self.router.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore scores and masks bit for bit."""
        self.router.load_state_dict(state)
