"""How long the batches of a run took, kept over stops and resumes."""

import contextlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import main_process_only

_PROCESS = Path("/proc/self")


@register_checkpoint_hooks
class TrainingClock:
    """Counts batches, the seconds that they took, and the memory at most."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.batches = 0
        self.peak_bytes = 0

    def start(self) -> None:
        """Forget what memory was in use before."""
        forget_peak()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Time one training batch: forward, backward, and maybe a step."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started
        self.batches += 1

    def describe(self) -> dict[str, float | int | None]:
        """Return seconds for a batch, and the most memory in use, bytes.

        Of the GPU where there is one, else of the process; from the first
        batch on, validation included.
        """
        if self.batches:
            self.peak_bytes = max(self.peak_bytes, peak_memory())
        mean = self.seconds / self.batches if self.batches else None
        return {
            "seconds_per_batch": mean and round(mean, 6),
            "training_seconds": round(self.seconds, 6),
            "peak_memory_bytes": self.peak_bytes or None,
        }

    @mark_as_saver
    @main_process_only
    def _save(self, path: Path) -> None:
        self.describe()
        path.write_text(json.dumps(vars(self)), encoding="utf-8")

    @mark_as_loader
    def _load(self, path: Path, end_of_epoch: bool) -> None:
        vars(self).update(json.loads(path.read_text(encoding="utf-8")))


def forget_peak() -> None:
    """Let the peak of memory begin anew, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")


def peak_memory() -> int:
    """Return the most bytes in use so far, of the GPU or of the process.

    0 where the system does not tell.
    """
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        status = (_PROCESS / "status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
