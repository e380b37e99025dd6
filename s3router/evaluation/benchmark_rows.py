"""Results of `benchmarks/` to rows of a table."""

from collections.abc import Sequence

from s3router.evaluation.aggregate import Result, rate_text
from s3router.evaluation.table_format import (
    format_bytes,
    format_points,
    format_share,
)

ENCODER_COLUMNS = {
    "task": "data",
    "labels": "labelled min",
    "method": "method",
    "rate": "rate",
    "dev": "dev %",
    "test": "test % [95% CI]",
    "measure": "of",
    "mask": "mask minus it, points [95% CI]",
    "stored": "stored",
    "seeds": "seeds",
}
STUDY_COLUMNS = {
    "task": "data",
    "labels": "labelled min",
    "method": "method",
    "parameters": "parameters",
    "name": "encoder",
    "hours": "hours heard",
    "teraflop": "teraflop",
    "test": "test % [95% CI]",
    "measure": "of",
}
CONTROL_COLUMNS = {
    "task": "data",
    "labels": "labelled min",
    "control": "mask",
    "rate": "rate",
    "removed": "removed",
    "dev": "dev %",
    "test": "test % [95% CI]",
    "measure": "of",
    "points": "points against the first [95% CI]",
    "seeds": "seeds",
}


def encoder_rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """Return the rows of the encoder benchmark's table.

    Arguments
    ---------
    results : sequence of mapping
        Of `benchmarks/encoder.py`: `metrics` holds `tuning` and
        `comparisons`.

    Returns
    -------
    list of dict
        Keys of `ENCODER_COLUMNS`, values as they are shown.
    """
    rows = []
    for result in results:
        differences = {
            (pair["task"], pair["minutes"], pair["pair"]): pair
            for pair in result["metrics"]["comparisons"]
        }
        for row in result["metrics"]["tuning"]:
            task, minutes, method = (
                row[key] for key in ("task", "minutes", "method")
            )
            pair = differences.get((task, minutes, f"mask_tuning - {method}"))
            rows.append(
                {
                    "task": task,
                    "labels": _labels(minutes),
                    "method": method,
                    "rate": f"{row['rate']:g}",
                    "dev": f"{100 * row['dev']:.1f}",
                    "test": rate_text(row["test"]),
                    "measure": row["measure"],
                    "mask": pair and format_points(pair),
                    "stored": format_bytes(row["stored_bytes"]),
                    "seeds": len(row["by_seed"]),
                    "command": result["command"],
                }
            )
    return rows


def study_rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """Return the rows of the tables over pre-training.

    Arguments
    ---------
    results : sequence of mapping
        Of `benchmarks/encoder_study.py`: `metrics` holds `rows`.

    Returns
    -------
    list of dict
        Keys of `STUDY_COLUMNS`, values as they are shown.
    """
    return [
        {
            **{key: row[key] for key in ("task", "method", "measure")},
            "labels": _labels(row["minutes"]),
            "name": row["name"].rstrip("/").removesuffix("/encoder"),
            "parameters": f"{row['parameters'] / 1e6:.1f} M",
            "hours": f"{row['hours']:.0f}",
            "teraflop": f"{row['teraflop']:.0f}",
            "test": rate_text(row["test"]),
            "command": result["command"],
        }
        for result in results
        for row in result["metrics"]["rows"]
    ]


def control_rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """Return the rows of the table of mask tuning's settings.

    Arguments
    ---------
    results : sequence of mapping
        Of `benchmarks/encoder_controls.py`: `metrics` holds `rows`.

    Returns
    -------
    list of dict
        Keys of `CONTROL_COLUMNS`, values as they are shown.
    """
    return [
        {
            **{key: row[key] for key in ("task", "control", "measure")},
            "labels": _labels(row["minutes"]),
            "rate": f"{row['rate']:g}",
            "removed": format_share(row["removed"]),
            "dev": f"{100 * row['dev']:.1f}",
            "test": rate_text(row["test"]),
            "points": format_points(against)
            if (against := row.get("against_base"))
            else None,
            "seeds": len(row["by_seed"]),
            "command": result["command"],
        }
        for result in results
        for row in result["metrics"]["rows"]
    ]


def _labels(minutes: float | None) -> str:
    return "all" if minutes is None else f"{minutes:g}"
