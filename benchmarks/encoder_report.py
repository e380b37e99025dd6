"""From trials to one result: rows, paired differences, JSON, table, plot."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from encoder_data import TASKS
from encoder_jobs import Cell
from encoder_plot import labels, plot

from s3router.evaluation.benchmark_rows import PROBE_COLUMNS, probe_cells
from s3router.evaluation.error_rates import error_rate
from s3router.evaluation.results import write_result
from s3router.evaluation.seeds import pool_differences, pool_seeds
from s3router.evaluation.significance import paired_difference
from s3router.evaluation.table_format import (
    format_bytes,
    format_points,
    format_table,
)

#: What mask tuning is compared with, pair by pair.
AGAINST = ("full", "lora", "head_only")
COLUMNS = {
    "task": "task",
    "labels": "labels",
    "method": "method",
    "rate": "rate",
    "dev": "dev %",
    "test": "test % [95% CI]",
    "measure": "of",
    "stored": "stored",
    "seeds": "seeds",
    "cpu": "CPU s",
}
PAIR_COLUMNS = {
    "task": "task",
    "labels": "labels",
    "pair": "difference",
    "points": "points [95% CI]",
    "verdict": "verdict",
}


def tuning_row(cell: Cell) -> dict[str, object]:
    """Return what a finished cell found.

    Arguments
    ---------
    cell : Cell
        With the trials of all rates and seeds.

    Returns
    -------
    dict
        The chosen rate, dev numbers of all rates, rates of all seeds, and
        `test`, pooled over the seeds.
    """
    final = [cell.final[seed] for seed in cell.seeds]
    tests = [
        error_rate(
            result["test"]["references"],
            result["test"]["hypotheses"],
            TASKS[cell.base["task"]].unit,
        )
        for result in final
    ]
    return {
        "task": cell.base["task"],
        "minutes": cell.base["minutes"],
        "measure": TASKS[cell.base["task"]].measure,
        "method": cell.base["method"],
        "described": final[0]["method"],
        "rate": cell.rate,
        "dev_by_rate": {
            f"{rate:g}": cell.search[rate]["dev"]["rate"] for rate in cell.rates
        },
        "diverged_rates": [r for r in cell.rates if cell.search[r]["diverged"]],
        "dev": statistics.fmean(r["dev"]["rate"] for r in final),
        "test": pool_seeds(tests),
        "by_seed": {
            str(seed): {
                "dev": result["dev"]["rate"],
                "test": test.rate,
                "diverged": result["diverged"],
                "loss": result["loss"],
                "labelled_seconds": result["labelled_seconds"],
            }
            for seed, result, test in zip(cell.seeds, final, tests, strict=True)
        },
        "trained": final[0]["trained"],
        "stored_bytes": final[0]["stored_bytes"],
        "removed": final[0]["removed"],
        "cpu_seconds": round(
            statistics.fmean(r["cpu_seconds"] for r in final), 1
        ),
    }


def comparisons(cells: Iterable[Cell]) -> list[dict[str, object]]:
    """Compare mask tuning with the other methods, labels being equal.

    Arguments
    ---------
    cells : iterable of Cell
        Of one encoder, finished.

    Returns
    -------
    list of dict
        `difference` of the rates (below 0: mask tuning is better) with its
        95% interval over test clips and seeds, and that of each seed.
    """
    groups: dict[tuple, dict[str, Cell]] = {}
    for cell in cells:
        key = (cell.base["task"], cell.base["minutes"])
        groups.setdefault(key, {})[cell.base["method"]] = cell
    found = []
    for (task, minutes), methods in groups.items():
        for other in AGAINST:
            if "mask_tuning" in methods and other in methods:
                pooled = difference(methods["mask_tuning"], methods[other])
                found.append(
                    {
                        "task": task,
                        "minutes": minutes,
                        "pair": f"mask_tuning - {other}",
                        **pooled,
                    }
                )
    return found


def difference(cell: Cell, other: Cell) -> dict[str, object]:
    """Compare two cells of one task on the same labelled draws.

    Arguments
    ---------
    cell, other : Cell
        Finished.

    Returns
    -------
    dict
        `difference` (below 0 where `cell` has fewer errors), `low`, `high`,
        `significant`, and `by_seed`.
    """
    unit = TASKS[cell.base["task"]].unit
    each = [
        paired_difference(
            cell.final[seed]["test"]["references"],
            other.final[seed]["test"]["hypotheses"],
            cell.final[seed]["test"]["hypotheses"],
            unit,
        )
        for seed in cell.seeds
    ]
    pooled = pool_differences(each)
    return {
        "difference": pooled.difference,
        "low": pooled.low,
        "high": pooled.high,
        "significant": pooled.significant,
        "by_seed": [one.difference for one in each],
    }


def write_report(
    path: Path,
    config: Mapping[str, object],
    encoder: Mapping[str, object],
    cells: Sequence[Cell],
    probes: Sequence[Mapping[str, object]],
) -> dict[str, object]:
    """Write the result of one encoder as JSON, and its plot beside it.

    Arguments
    ---------
    path : pathlib.Path
        The JSON.
    config : mapping
        The command's options.
    encoder : mapping
        What the encoder is.
    cells : sequence of Cell
        Finished.
    probes : sequence of mapping
        Results of `run_probe`.

    Returns
    -------
    dict
        `tuning`, `comparisons` and `probes`, as they were written.
    """
    metrics = {
        "probes": list(probes),
        "tuning": [tuning_row(cell) for cell in cells],
        "comparisons": comparisons(cells),
    }
    settings = {
        f"{c.base['task']}, {c.base['minutes']}, {c.base['method']}": c.base
        for c in cells
    }
    write_result(
        path,
        config={**config, "trials": settings},
        seed=min((s for c in cells for s in c.seeds), default=0),
        metrics=metrics,
        extra={"benchmark": "encoder", "encoder": encoder},
    )
    if metrics["tuning"]:
        plot(path.with_suffix(".png"), str(encoder["name"]), metrics["tuning"])
    return metrics


def print_report(name: str, metrics: Mapping[str, Sequence[Mapping]]) -> None:
    """Print the tables of one encoder."""
    print(f"\n{name}")
    if metrics["probes"]:
        rows = [probe_cells(probe) for probe in metrics["probes"]]
        short = {k: v for k, v in PROBE_COLUMNS.items() if k != "about"}
        print(f"\n{format_table(rows, short)}")
        for probe in metrics["probes"]:
            print(f"  {probe['probe']}: {probe['about']}")
    if metrics["tuning"]:
        rows = [_tuning_cells(row) for row in metrics["tuning"]]
        print(f"\n{format_table(rows, COLUMNS)}")
    if metrics["comparisons"]:
        rows = [_pair_cells(row) for row in metrics["comparisons"]]
        print(f"\n{format_table(rows, PAIR_COLUMNS)}")


def _tuning_cells(row: Mapping) -> dict[str, object]:
    return {
        **row,
        "labels": labels(row["minutes"]),
        "rate": f"{row['rate']:g}",
        "dev": f"{100 * row['dev']:.1f}",
        "test": str(row["test"]),
        "stored": format_bytes(row["stored_bytes"]),
        "seeds": len(row["by_seed"]),
        "cpu": f"{row['cpu_seconds']:.0f}",
    }


def _pair_cells(row: Mapping) -> dict[str, object]:
    side = "ahead" if row["difference"] < 0 else "behind"
    return {
        **row,
        "labels": labels(row["minutes"]),
        "points": format_points(row),
        "verdict": f"mask {side}" if row["significant"] else "open",
    }
