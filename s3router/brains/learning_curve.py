"""The numbers of each epoch of a stage, in a file that outlives the run."""

import time
from pathlib import Path

from s3router.brains.main_process import process_number
from s3router.formats.files import read_json, write_json


class LearningCurve:
    """Numbers of each epoch of one stage, kept as JSON.

    Arguments
    ---------
    path : str or path
        The file; its entries after a resumed epoch are dropped.
    machine : str
        What computes, as "cpu" or a GPU's name; noted for the model card.
    """

    def __init__(self, path: str | Path, machine: str = "cpu") -> None:
        self.path = Path(path)
        self.machine = machine
        self.entries: list[dict] = []
        if self.path.is_file():
            self.entries = read_json(self.path)["entries"]
        self._begin()

    def _begin(self) -> None:
        last = self.entries[-1] if self.entries else {}
        self._cpu = last.get("cpu_seconds", 0.0) - time.process_time()
        # Runs from before it was noted used one thread.
        wall = last.get("wall_seconds", last.get("cpu_seconds", 0.0))
        self._wall = wall - time.monotonic()

    def rewind(self, epoch: int) -> None:
        """Forget entries after an epoch: their steps are done again."""
        self.entries = [e for e in self.entries if e["epoch"] <= epoch]
        self._begin()

    def add(self, **numbers: float) -> None:
        """Append an epoch's numbers and write the file."""
        numbers["cpu_seconds"] = self._cpu + time.process_time()
        numbers["wall_seconds"] = self._wall + time.monotonic()
        self.entries.append(numbers)
        content = {
            "format_version": 1,
            "machine": self.machine,
            "processes": process_number()[1],
            "entries": self.entries,
        }
        write_json(self.path, content)
