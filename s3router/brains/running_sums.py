"""Sums of an epoch so far, as a part of the checkpoint.

A run that was killed within an epoch then reports the same means, hours and
accuracies as one that was not.
"""

from pathlib import Path

import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import main_process_only

from s3router.brains.main_process import process_number, sum_over_processes
from s3router.formats.files import read_json, write_json


@register_checkpoint_hooks
class RunningSums:
    """Adds numbers by name; they stay on their device until they are read.

    Example
    -------
    >>> sums = RunningSums()
    >>> sums.start()
    >>> sums.add(loss=torch.tensor(1.5), batches=1)
    >>> sums.add(loss=torch.tensor(0.5), batches=1)
    >>> sums.totals()
    {'batches': 2.0, 'loss': 2.0}
    """

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._loaded = False

    def start(self) -> None:
        """Begin an epoch at zero, or where a checkpoint within it was."""
        if not self._loaded:
            self._sums = {}
        self._loaded = False

    def add(self, **numbers: float | torch.Tensor) -> None:
        """Add to the sums; no tensor is waited for."""
        for name, number in numbers.items():
            value = torch.as_tensor(number).detach()
            # Not all devices have 64 bits; the others lose nothing.
            if value.device.type != "mps":
                value = value.double()
            before = self._sums.get(name)
            if before is not None:
                value = before.to(value.device) + value
            self._sums[name] = value

    def gather(self, device: torch.device | str) -> None:
        """Move the sums of all processes to the main one.

        Arguments
        ---------
        device : torch.device or str
            Which the process group talks through.
        """
        number, count = process_number()
        if count == 1 or not self._sums:
            return
        names = sorted(self._sums)
        values = torch.stack([self._sums[name].to(device) for name in names])
        values = sum_over_processes(values)
        kept = values if number == 0 else torch.zeros_like(values)
        self._sums = dict(zip(names, kept.unbind(), strict=True))

    def totals(self) -> dict[str, float]:
        """Return the sums of this process, by name."""
        return {name: float(self._sums[name]) for name in sorted(self._sums)}

    @mark_as_saver
    @main_process_only
    def _save(self, path: Path) -> None:
        write_json(path, {"format_version": 1, "sums": self.totals()})

    @mark_as_loader
    def _load(self, path: Path, end_of_epoch: bool) -> None:
        if end_of_epoch:
            return
        # Other processes have handed theirs to the main one.
        share = 1.0 if process_number()[0] == 0 else 0.0
        self._sums = {
            name: torch.tensor(share * value, dtype=torch.float64)
            for name, value in read_json(path)["sums"].items()
        }
        self._loaded = True
