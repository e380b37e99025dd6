"""What methods have in common whose mask is found once and then stays.

The mask comes before training (magnitude, random) or from a look at the data
(Taylor). Behind it either the kept weights train along with the head, or the
head alone, so that a language costs a mask and a head. Must not rank.
"""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from s3router.errors import flag
from s3router.masks.exchange import check_like
from s3router.masks.ranking import Ranking
from s3router.masks.units import Sparsity
from s3router.methods.base import Method, check_masking, freeze
from s3router.methods.tunable import free_weights, restore_weights


class FixedMask(Method):
    """Find a mask once, then train what it leaves.

    Arguments
    ---------
    targets : str or list of str
        Which linear layers are masked; `all`, `feed_forward`, `attention`,
        or patterns.
    sparsity : float or mapping
        Share removed, in [0, 1); or by part or block.
    scope : str
        `layer` or `global`.
    pattern : str
        `unstructured`, `n:m` or `structured`.
    train_weights : bool, optional
        Whether the kept weights, and all others behind the front end, train;
        else nothing but the head does. None: as the method's source has it.

    Raises
    ------
    SettingError
        If a setting cannot be, whatever the encoder is.
    """

    def __init__(
        self,
        targets: str | Sequence[str] = "all",
        sparsity: Sparsity = 0.5,
        scope: str = "layer",
        pattern: str = "unstructured",
        train_weights: bool | None = None,
    ):
        check_masking(targets, sparsity, scope, pattern)
        self.targets = targets
        self.sparsity = sparsity
        self.scope = scope
        self.pattern = pattern
        if train_weights is not None:
            self.changes_weights = flag("train_weights", train_weights)
        self._tuned: dict[str, nn.Parameter] = {}
        self._masked: dict[str, nn.Parameter] = {}
        self._original: dict[str, Tensor] = {}
        self._masks: dict[str, Tensor] = {}

    @abstractmethod
    def find_masks(
        self, encoder: nn.Module, ranking: Ranking
    ) -> dict[str, Tensor] | None:
        """Return the masks, or None if data must be seen first.

        Arguments
        ---------
        encoder : torch.nn.Module
            With its pre-trained weights.
        ranking : Ranking
            Makes masks of a saliency.
        """

    def prepare(self, encoder: nn.Module) -> None:
        """Find the masks and apply them; free or freeze the weights."""
        self.ranking = Ranking(
            encoder, self.targets, self.sparsity, self.scope, self.pattern
        )
        masks = self.find_masks(encoder, self.ranking)
        if self.changes_weights:
            self._tuned = free_weights(encoder)
        else:
            freeze(encoder)
        self._masked = {
            name: encoder.get_submodule(name).weight
            for name in self.ranking.targets
        }
        if not self.changes_weights:
            self._original = {
                name: weight.detach().clone()
                for name, weight in self._masked.items()
            }
        if self.changes_weights:
            for name, weight in self._masked.items():
                weight.register_hook(
                    lambda gradient, name=name: gradient * self._masks[name]
                )
        if masks is None:
            masks = {
                name: torch.ones_like(weight, dtype=torch.bool)
                for name, weight in self._masked.items()
            }
        self.set_masks(masks)

    @torch.no_grad()
    def set_masks(self, masks: dict[str, Tensor]) -> None:
        """Put masks in place, on the weights as they are or were.

        Gradients of removed weights are 0 from now on, so that they do not
        count where gradients are clipped.
        """
        for name, weight in self._masked.items():
            self._masks[name] = masks[name].to(weight.device)
            if name in self._original:
                # Where the encoder has moved since, so does what it was.
                original = self._original[name].to(weight.device)
                self._original[name] = original
                weight.copy_(original)
        self._apply_masks()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return all tuned weights as the group `weights`, or none."""
        if not self.changes_weights:
            return {}
        return {"weights": list(self._tuned.values())}

    def after_step(self, step: int) -> dict[str, float]:
        """Take away what the optimizer gave back to removed weights."""
        if self.changes_weights:
            self._apply_masks()
        return {}

    def masks(self) -> dict[str, Tensor]:
        """Return the mask of every target, True where kept."""
        return dict(self._masks)

    def weights(self) -> dict[str, Tensor]:
        """Return every tuned weight, removed ones as 0; or nothing."""
        return {n: p.detach() for n, p in self._tuned.items()}

    def describe(self) -> dict:
        """Return the method's name and its settings."""
        return {
            "method": self.name,
            "targets": self.targets,
            "sparsity": self.sparsity,
            "scope": self.scope,
            "pattern": self.pattern,
            "train_weights": self.changes_weights,
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Return the masks, and the tuned weights if there are any."""
        masks = {f"masks.{n}": mask for n, mask in self._masks.items()}
        return masks | {f"weights.{n}": w for n, w in self.weights().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore masks and weights bit for bit."""
        live = {f"masks.{n}": mask for n, mask in self._masks.items()}
        given = {n: t for n, t in state.items() if n.startswith("masks.")}
        check_like(given, live, "mask")
        tuned = {
            name.removeprefix("weights."): tensor
            for name, tensor in state.items()
            if name.startswith("weights.")
        }
        restore_weights(self._tuned, tuned)
        self.set_masks(
            {n.removeprefix("masks."): mask for n, mask in given.items()}
        )

    @torch.no_grad()
    def _apply_masks(self) -> None:
        for name, weight in self._masked.items():
            mask = self._masks[name]
            if mask.device != weight.device:
                mask = self._masks[name] = mask.to(weight.device)
            weight.mul_(mask)
