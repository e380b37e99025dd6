"""The protocol that every method of finding a subnetwork follows.

The training loop (`s3router.brains`) asks a method for its parameters, tells
it about every optimizer step, and takes the subnetwork from it at the end. It
never asks which method it is, so a YAML swaps one for another. This file must
not know any concrete method.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import main_process_only
from torch import Tensor, nn

from s3router.errors import MismatchError, one_of
from s3router.masks.ranking import SCOPES
from s3router.masks.rules import Pattern
from s3router.masks.targets import target_names
from s3router.masks.units import Sparsity, Unit, check_pattern, shares

BatchLoss = Callable[[object], Tensor]


@register_checkpoint_hooks
class Method(ABC):
    """How a subnetwork of a frozen encoder is found.

    The order of calls is: `prepare` once, before any optimizer exists;
    `plan`; `before_fit` once, unless training resumes; `after_step` after
    every optimizer step; `evaluated` around every evaluation; then `masks`
    and `weights`.

    Parameters come in named groups. Each group gets an optimizer and a
    learning rate of its own (YAML keys `optimizers` and their `lr_...`), and
    the groups of one method never share a tensor.
    """

    name: str
    #: True where the result keeps tuned weights, not only a mask and a head.
    changes_weights: bool = False

    @abstractmethod
    def prepare(self, encoder: nn.Module) -> None:
        """Attach to an encoder: freeze it and create what is trained.

        Arguments
        ---------
        encoder : torch.nn.Module
            The Hugging Face model (`SSLEncoder.model`) with its pre-trained
            weights already in place. All names are relative to it.
        """

    @abstractmethod
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return what the optimizers train, by group; empty for none."""

    def plan(self, steps: int) -> None:
        """Learn how long training will be, for schedules.

        Arguments
        ---------
        steps : int
            Optimizer steps in all, those before a resume included.

        Raises
        ------
        SettingError
            If a schedule of the method cannot end within so many.
        """

    def before_fit(
        self, batches: Callable[[], Iterator], loss: BatchLoss
    ) -> None:
        """Look at data before the first step (for Taylor scores and alike).

        Arguments
        ---------
        batches : callable
            Returns an iterator over the training batches.
        loss : callable
            Maps one batch to its loss, a scalar with a graph.
        """

    def after_step(self, step: int) -> dict[str, float]:
        """Do what the method does after an optimizer step.

        Arguments
        ---------
        step : int
            Number of optimizer steps done, from 1.

        Returns
        -------
        dict
            Numbers for the log, as the share of the mask that flipped.
        """
        return {}

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Keep the encoder, inside, as `masks` and `weights` state it.

        For methods whose weights may grow back between two prunings: what is
        evaluated is what would be saved, and training goes on from where it
        was.
        """
        yield

    def masks(self) -> dict[str, Tensor]:
        """Return the mask by weight-owner name (bool); empty for none."""
        return {}

    def weights(self) -> dict[str, Tensor]:
        """Return tuned weights by parameter name; empty where none changed.

        They have the stated sparsity, whatever has grown back in training.
        """
        return {}

    def describe(self) -> dict:
        """Return the settings that belong into the subnetwork's config."""
        return {"method": self.name}

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Return all that a checkpoint must hold to go on bit for bit."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""

    @mark_as_saver
    @main_process_only
    def _save(self, path: Path) -> None:
        state = {"method": self.name, "state": self.state_dict()}
        torch.save(state, path)

    @mark_as_loader
    def _load(self, path: Path, end_of_epoch: bool) -> None:
        saved = torch.load(path, weights_only=True)
        if saved["method"] != self.name:
            raise MismatchError(
                f"the checkpoint in {path.parent} is of {saved['method']!r}, "
                f"another method than {self.name!r}; choose another "
                f"--output_folder, or remove that one to start over"
            )
        self.load_state_dict(saved["state"])


def check_masking(
    targets: str | Sequence[str], sparsity: Sparsity, scope: str, pattern: str
) -> None:
    """Refuse masks that no encoder could have, before there is one.

    Arguments
    ---------
    targets : str or sequence of str
        See `s3router.masks.targets`.
    sparsity : float or mapping
        One number is held against the pattern; a mapping is read when it is
        known what there is.
    scope, pattern : str
        As of `s3router.masks.ranking.Ranking`.

    Raises
    ------
    SettingError
        If one of them cannot be, or two do not go together.
    """
    target_names(targets)
    parsed = Pattern.parse(pattern)
    check_pattern(parsed, one_of(scope, SCOPES, "scope"), {})
    if not isinstance(sparsity, Mapping):
        # It is the same for all units, so any one tells.
        shares(sparsity, [Unit("any", None, None, {})], parsed)


def freeze(module: nn.Module) -> None:
    """Stop the training of every parameter of a module."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def trainable_count(groups: dict[str, Iterable[nn.Parameter]]) -> int:
    """Return the number of trained values in some parameter groups."""
    return sum(p.numel() for group in groups.values() for p in group)
