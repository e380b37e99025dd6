"""How long the steps of a run took, kept over stops and resumes."""

import json
import resource
import sys
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


@register_checkpoint_hooks
class TrainingClock:
    """Counts batches, the seconds that they took, and the memory at most."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.batches = 0
        self.peak_bytes = 0

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Time one training batch: forward, backward, and maybe a step."""
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started
        self.batches += 1

    def describe(self) -> dict[str, float | int | None]:
        """Return seconds for a batch, and the most memory in use, bytes.

        Of the GPU where there is one, else of the process.
        """
        self.peak_bytes = max(self.peak_bytes, peak_memory())
        mean = self.seconds / self.batches if self.batches else None
        return {
            "seconds_per_batch": mean and round(mean, 4),
            "training_seconds": round(self.seconds, 1),
            "peak_memory_bytes": self.peak_bytes,
        }

    @mark_as_saver
    @main_process_only
    def _save(self, path: Path) -> None:
        self.peak_bytes = max(self.peak_bytes, peak_memory())
        path.write_text(json.dumps(vars(self)), encoding="utf-8")

    @mark_as_loader
    def _load(self, path: Path, end_of_epoch: bool) -> None:
        vars(self).update(json.loads(path.read_text(encoding="utf-8")))


def peak_memory() -> int:
    """Return the most bytes in use so far, of the GPU or of the process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes, but bytes on macOS.
    return peak if sys.platform == "darwin" else peak * 1024
