"""From finished runs to rows: rates, differences, sizes, speed.

Reads results, transcripts and subnetworks as they lie on disk. Must not run
or print anything.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from s3router.comparison.cells import Cell
from s3router.comparison.runs import Run, choose, final_runs, search_runs
from s3router.comparison.spec import Comparison
from s3router.evaluation.aggregate import as_rate
from s3router.evaluation.results import read_result
from s3router.evaluation.seeds import pool_differences, pool_seeds
from s3router.evaluation.significance import (
    PairedDifference,
    paired_difference,
)
from s3router.formats.files import read_json
from s3router.formats.subnetwork import Subnetwork

#: Unit of the error rate that methods are compared by, and its name.
MEASURE = "char"


def rows_of(comparison: Comparison) -> list[dict[str, object]]:
    """Return a row for each cell whose runs have ended, all or some.

    Arguments
    ---------
    comparison : Comparison
        Run, in whole or in part.

    Returns
    -------
    list of dict
        `method`, `shared`, `own`, `chosen` of `values`, `searched` (dev CER),
        `seeds` (those that are there), `dev`, `test` (`ErrorRate`, pooled),
        `against` (`PairedDifference` to the baseline, or None), `sparsity`
        (measured on the saved masks), `trained`, `bytes`, `adapter_bytes`
        or None, `seconds_per_batch`, `peak_memory_bytes`, and, of all runs
        of the cell, searches included, `runs` and `training_seconds`.
    """
    finished = {
        index: runs
        for index, cell in enumerate(comparison.cells)
        if (runs := _finished(cell, comparison.output))
    }
    rows = []
    for index, runs in finished.items():
        cell = comparison.cells[index]
        base = _baseline(comparison, cell, finished)
        rows.append(_row(cell, runs, base, comparison.output))
    return rows


def _finished(cell: Cell, output: Path) -> list[Run]:
    chosen = choose(cell, output)
    if chosen is None:
        return []
    return [run for run in final_runs(cell, chosen, output) if run.is_done()]


def _baseline(
    comparison: Comparison, cell: Cell, finished: Mapping[int, list[Run]]
) -> list[Run]:
    """Return the baseline's runs under the settings that a cell shares."""
    for index, other in enumerate(comparison.cells):
        if other.method == comparison.baseline and (
            other.shared == cell.shared
        ):
            return [] if other is cell else finished.get(index, [])
    return []


def _row(
    cell: Cell, runs: Sequence[Run], base: Sequence[Run], output: Path
) -> dict[str, object]:
    results = [read_result(run.result) for run in runs]
    extras = [result["extra"] for result in results]
    saved = [Subnetwork.load(run.folder / "subnetwork") for run in runs]
    searched = search_runs(cell, output)
    trained = {run.folder: run for run in (*searched, *runs)}.values()

    def mean(key: str) -> float | None:
        values = [e[key] for e in extras if e.get(key) is not None]
        return statistics.fmean(values) if values else None

    return {
        "method": cell.method,
        "shared": cell.shared,
        "own": cell.own,
        "chosen": runs[0].chosen,
        "values": cell.search,
        "searched": {
            " ".join(f"{k}={v}" for k, v in run.chosen.items()): read_result(
                run.result
            )["metrics"]["dev_cer"]
            for run in searched
        },
        "seeds": [run.seed for run in runs],
        "dev": statistics.fmean(r["metrics"]["dev_cer"] for r in results),
        "test": pool_seeds(
            [as_rate(r["metrics"]["test_cer"]) for r in results]
        ),
        "against": _difference(runs, base),
        "sparsity": statistics.fmean(one.sparsity() for one in saved),
        "adapter_bytes": saved[0].config.get("adapter_bytes"),
        "trained": extras[0]["trainable_parameters"],
        "bytes": mean("subnetwork_bytes"),
        "seconds_per_batch": mean("seconds_per_batch"),
        "peak_memory_bytes": mean("peak_memory_bytes"),
        "runs": len(trained),
        "training_seconds": sum(
            run.total_seconds("training_seconds") or 0.0 for run in trained
        ),
    }


def _difference(
    runs: Sequence[Run], base: Sequence[Run]
) -> PairedDifference | None:
    """Return how far runs stand from the baseline's of the same seeds."""
    theirs = {run.seed: run for run in base}
    pairs = [(run, theirs[run.seed]) for run in runs if run.seed in theirs]
    if not pairs:
        return None
    return pool_differences([_paired(*pair) for pair in pairs])


def _paired(run: Run, base: Run) -> PairedDifference:
    ours, theirs = (_texts(one) for one in (run, base))
    ids = sorted(ours)
    spaceless = Subnetwork.load(run.folder / "subnetwork").config["spaceless"]
    return paired_difference(
        [ours[i]["reference"] for i in ids],
        [theirs[i]["hypothesis"] for i in ids],
        [ours[i]["hypothesis"] for i in ids],
        MEASURE,
        spaceless=bool(spaceless),
    )


def _texts(run: Run) -> dict[str, dict]:
    rows = read_json(run.folder / "transcripts.json")
    return {row["id"]: row for row in rows}
