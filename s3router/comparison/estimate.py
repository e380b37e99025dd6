"""How long a comparison will take, told before it starts.

By the runs that are there; where there are none, by one epoch of the baseline,
whose results nobody sees. Must not write into the folders of runs.
"""

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from s3router.brains.hparams import flatten_hparams, parse_yaml
from s3router.brains.stages import stages_of
from s3router.comparison.cells import Cell
from s3router.comparison.launch import Local
from s3router.comparison.runs import (
    Run,
    count_missing,
    runs_left,
    search_runs,
)
from s3router.comparison.spec import Comparison
from s3router.errors import S3RouterError
from s3router.evaluation.results import read_result

#: What makes a run short.
_SHORT = {"number_of_epochs": 1, "validate_every": 1, "stages": None}


def announce(
    path: str,
    comparison: Comparison,
    jobs: int,
    options: Sequence[str],
    trial: bool,
) -> None:
    """Print how many runs are left, and about how many hours.

    Arguments
    ---------
    path : str
        The comparison's YAML.
    comparison : Comparison
        What is to be run.
    jobs : int
        Runs at a time.
    options : sequence of str
        For every run.
    trial : bool
        Whether this machine runs it, and so may try.
    """
    left, total = count_missing(comparison)
    if not left:
        print(f"{path}: all {total} runs are there")
        return
    text = f"{path}: {left} of {total} runs to do, {jobs} at a time"
    seconds, source = seconds_left(comparison), "what is there"
    if seconds is None and trial:
        print(f"{text}; one epoch of {comparison.baseline} tells how long ...")
        seconds = seconds_by_trial(comparison, jobs, options)
        source = "that epoch"
    if seconds is None:
        text += "; how long they take is known when the first has ended"
    else:
        text += f"; about {_duration(seconds / jobs)} by {source}"
    print(text, flush=True)


def _duration(seconds: float) -> str:
    if seconds < 5400:
        return f"{max(1, round(seconds / 60))} min"
    return f"{seconds / 3600:.1f} h"


def seconds_left(comparison: Comparison) -> float | None:
    """Return the seconds that what is missing takes, by runs that are there.

    Results that do not tell the whole of it took as much longer than their
    training as those that do. Of a method without any, the mean of the others
    is taken. None: no run at all is there.
    """
    told: list[tuple[str, float | None, float | None]] = []
    for cell in comparison.cells:
        for run in search_runs(cell, comparison.output):
            if run.is_done():
                names = "run_seconds", "training_seconds"
                told.append((cell.method, *map(run.total_seconds, names)))
    both = [(whole, part) for _, whole, part in told if whole and part]
    longer = sum(w for w, _ in both) / sum(p for _, p in both) if both else 1.0
    found: dict[str, list[float]] = {}
    for method, whole, part in told:
        if whole is None and part is None:
            continue
        seconds = part * longer if whole is None else whole
        found.setdefault(method, []).append(seconds)
    if not found:
        return None
    means = {name: statistics.fmean(times) for name, times in found.items()}
    known = statistics.fmean(means.values())
    return sum(
        means.get(cell.method, known) * runs_left(cell, comparison.output)
        for cell in comparison.cells
    )


def seconds_by_trial(
    comparison: Comparison, jobs: int, options: Sequence[str]
) -> float | None:
    """Return the seconds of all runs, by one epoch of the baseline.

    What a run spends beside its epochs counts once a stage. None: it failed,
    and a run will say why.
    """
    cell = next(
        cell for cell in comparison.cells if cell.method == comparison.baseline
    )
    (run, *_) = search_runs(cell, comparison.output)
    comparison.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix="trial_", dir=comparison.output
    ) as folder:
        short = _short(run, Path(folder) / cell.name / "as_is" / str(run.seed))
        command = short.command(comparison.recipe, options)
        log = str(Path(folder, "output.txt").resolve())
        started = time.perf_counter()
        ((_, status),) = Local(jobs).run([command], [log])
        wall = time.perf_counter() - started
        try:
            epoch = read_result(short.result)["extra"]["training_seconds"]
        except (S3RouterError, KeyError):
            return None
    if status:
        return None
    beside = max(0.0, wall - epoch)
    return sum(
        runs_left(each, comparison.output)
        * sum(beside + epochs * epoch for epochs in _epochs(each))
        for each in comparison.cells
    )


def _short(run: Run, folder: Path) -> Run:
    chosen = {**run.chosen, **_SHORT}
    return replace(run, chosen=chosen, folder=folder, tested=False)


def _epochs(cell: Cell) -> list[int]:
    """Return how many epochs each stage of a cell's runs has."""
    told: Mapping[str, object] = cell.settings(
        cell.candidates()[0], cell.seeds[0]
    )
    tree = parse_yaml(flatten_hparams(cell.yaml, dict(told)), cell.yaml)
    return [
        stage.get("number_of_epochs", tree["number_of_epochs"])
        for stage in stages_of(cell.yaml, dict(told))
    ]
