"""The runs of a comparison: which are missing, and the command of each.

First every cell is searched with its first seed, on dev alone. Then the chosen
setting runs with every seed; the first one's run, which is there already, is
only tested. Must not start a process.
"""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from s3router.brains.hparams import flatten_hparams, parse_yaml
from s3router.comparison.cells import Cell, word
from s3router.comparison.spec import Comparison
from s3router.errors import FormatError, NotFoundError, SettingError
from s3router.evaluation.results import portable, read_result

#: Stands for a reference or an object: other settings tell what it comes to.
_TAGGED = "<tagged>"
#: Where and how a run is done, not what.
_NOT_COMPARED = (
    "evaluate_test",
    "output_folder",
    "result_file",
    "reuse_folder",
)


@dataclass(frozen=True)
class Run:
    """One run of the recipe.

    Arguments
    ---------
    cell : Cell
        The row that it belongs to.
    chosen : dict
        The searched settings.
    seed : int
        Of training and of the labelled draw.
    folder : pathlib.Path
        Its output folder.
    tested : bool
        Whether it reads the test set.
    starts : dict, optional
        Settings that other runs give; None: these have not ended.
    """

    cell: Cell = field(hash=False)
    chosen: dict[str, object] = field(hash=False)
    seed: int
    folder: Path
    tested: bool
    starts: dict[str, str] | None = field(hash=False)

    @property
    def result(self) -> Path:
        """The file that is there when the run has ended."""
        return self.folder / "result.json"

    def command(self, recipe: str, options: Sequence[str] = ()) -> list[str]:
        """Return the command, for a process.

        Arguments
        ---------
        recipe : str
            The recipe's script.
        options : sequence of str
            Of SpeechBrain, as `--device=cpu`.
        """
        settings = self._settings()
        settings["output_folder"] = str(self.folder)
        settings["evaluate_test"] = self.tested
        told = [
            f"--{key}={'null' if value is None else value}"
            for key, value in settings.items()
        ]
        return [sys.executable, recipe, self.cell.yaml, *told, *options]

    def is_done(self) -> bool:
        """Return whether its result is there, with the test set if asked.

        Raises
        ------
        SettingError
            If what is there was made with other settings.
        """
        if self.starts is None:
            return False
        try:
            result = read_result(self.result)
        except (NotFoundError, FormatError):
            return False
        self._check_settings(result["config"])
        return "test_cer" in result["metrics"] or not self.tested

    def total_seconds(self, *names: str) -> float | None:
        """Return what a run took, with all stages.

        Arguments
        ---------
        *names : str
            What of a result's `extra` to add up, of each the first that is
            there: `training_seconds`, or `run_seconds` for all of it.

        Returns
        -------
        float or None
            Seconds; None: not told.
        """
        try:
            extras = [
                read_result(file)["extra"]
                for file in self.folder.rglob("result.json")
            ]
        except FormatError:
            return None
        seconds = [
            next((e[name] for name in names if e.get(name) is not None), None)
            for e in extras
        ]
        return sum(seconds) if seconds and None not in seconds else None

    def _settings(self) -> dict[str, object]:
        settings = self.cell.settings(self.chosen, self.seed)
        return {**settings, **(self.starts or {})}

    def _check_settings(self, used: Mapping[str, object]) -> None:
        told = json.dumps(self._settings())
        for key, expected in _stated(self.cell.yaml, told).items():
            if key in used and str(expected) != str(used[key]):
                raise SettingError(
                    f"{self.folder} was made with {key} {used[key]!r}, and "
                    f"not {expected!r}; choose another output_folder, or "
                    "delete it to run it again"
                )


@cache
def _stated(yaml: str, told: str) -> dict[str, object]:
    """Return the plain settings of a run's (last) stage, as results have them.

    Kept, because a YAML takes a tenth of a second, and each run is looked at
    whenever one ends. `told` is JSON.
    """
    tree = parse_yaml(flatten_hparams(yaml, json.loads(told)), yaml)
    last = (tree.get("stages") or [{}])[-1]
    stated = {}
    for key, value in tree.items():
        text = json.dumps(value, default=lambda _: _TAGGED)
        if key not in (*_NOT_COMPARED, *last) and _TAGGED not in text:
            stated[key] = portable(json.loads(text), key)
    return stated


def search_runs(cell: Cell, output: Path) -> list[Run]:
    """Return the runs among which dev chooses, all of the first seed."""
    return [
        _run(cell, chosen, cell.seeds[0], output, tested=False)
        for chosen in cell.candidates()
    ]


def choose(cell: Cell, output: Path) -> dict[str, object] | None:
    """Return the setting with the lowest dev CER; None: not all ran.

    Of equal ones the first is taken.

    Arguments
    ---------
    cell : Cell
        The row.
    output : pathlib.Path
        The comparison's folder.
    """
    runs = search_runs(cell, output)
    if not all(run.is_done() for run in runs):
        return None
    return min(runs, key=lambda run: dev_error(run.result)).chosen


def dev_error(result: Path) -> float:
    """Return the character error rate on dev of a run."""
    return read_result(result)["metrics"]["dev_cer"]


def final_runs(cell: Cell, chosen: dict, output: Path) -> list[Run]:
    """Return the runs of all seeds with the chosen setting."""
    return [_run(cell, chosen, s, output, tested=True) for s in cell.seeds]


def missing_runs(comparison: Comparison) -> list[Run]:
    """Return what can run now: searches, then seeds of searched cells.

    A cell that starts from another's subnetworks waits for these.
    """
    output = comparison.output
    missing = []
    for cell in comparison.cells:
        chosen = choose(cell, output)
        runs = (
            search_runs(cell, output)
            if chosen is None
            else final_runs(cell, chosen, output)
        )
        missing += [
            run for run in runs if run.starts is not None and not run.is_done()
        ]
    return missing


def count_missing(comparison: Comparison) -> tuple[int, int]:
    """Return how many runs are left, and how many there are in all.

    The test of a searched run counts as no run: it does not train.
    """
    total = sum(
        len(cell.candidates()) + len(cell.seeds) - 1
        for cell in comparison.cells
    )
    left = sum(runs_left(cell, comparison.output) for cell in comparison.cells)
    return left, total


def runs_left(cell: Cell, output: Path) -> int:
    """Return how many runs of a cell are left."""
    left = sum(not run.is_done() for run in search_runs(cell, output))
    chosen = choose(cell, output)
    if chosen is None:
        return left + len(cell.seeds) - 1
    finals = final_runs(cell, chosen, output)[1:]
    return left + sum(not run.is_done() for run in finals)


def as_text(command: Sequence[str]) -> str:
    """Return a command as a shell takes it."""
    return shlex.join(command)


def _run(
    cell: Cell, chosen: dict, seed: int, output: Path, tested: bool
) -> Run:
    name = "_".join(f"{key}-{word(value)}" for key, value in chosen.items())
    folder = output / cell.name / (name or "as_is") / str(seed)
    starts = _starts(cell, seed, output)
    return Run(cell, chosen, seed, folder, tested, starts)


def _starts(cell: Cell, seed: int, output: Path) -> dict[str, str] | None:
    """Return a run's settings that other runs give; None: not all ended."""
    found = {}
    for key, other in cell.starts.items():
        chosen = choose(other, output)
        if chosen is None:
            return None
        run = _run(other, chosen, seed, output, tested=False)
        if not run.is_done():
            return None
        found[key] = str(run.folder / "subnetwork")
    return found
