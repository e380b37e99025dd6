"""Results of `s3router compare` to rows of a table."""

import json
from collections.abc import Callable, Mapping, Sequence

from s3router.evaluation.aggregate import Result, rate_text
from s3router.evaluation.table_format import (
    format_bytes,
    format_points,
    format_share,
)

Row = Mapping[str, object]

COMPARISON_COLUMNS = {
    "where": "where",
    "method": "method",
    "chosen": "chosen",
    "sparsity": "sparsity",
    "dev": "dev CER %",
    "test": "test CER % [95% CI]",
    "against": "points against the baseline [95% CI]",
    "trained": "trained",
    "bytes": "subnetwork",
    "added": "of it, 16 bit",
    "seconds": "s a batch",
    "memory": "peak memory",
    "seeds": "seeds",
}


def comparison_rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """Return the rows of the table of a comparison.

    Arguments
    ---------
    results : sequence of mapping
        Of `s3router compare`: `metrics` holds `rows`.

    Returns
    -------
    list of dict
        Keys of `COMPARISON_COLUMNS`, values as they are shown.
    """
    return [
        {**cells, "command": result["command"]}
        for result in results
        for cells in comparison_cells(result["metrics"]["rows"])
    ]


def summary_rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """Return the rows of one summary of comparisons: a column a place.

    Arguments
    ---------
    results : sequence of mapping
        As for `comparison_rows`.

    Returns
    -------
    list of dict
        Keys of `summary_columns`; methods of one name are one row.
    """
    return summary_cells(
        [row for result in results for row in result["metrics"]["rows"]]
    )


def summary_cells(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return a row for each method and its own settings, of all places.

    Arguments
    ---------
    rows : sequence of mapping
        `metrics["rows"]`, as JSON has it.

    Returns
    -------
    list of dict
        `method`, `sparsity`, `bytes`, and for each of `places` the test's
        error in percent and, but for the baseline, points against it.
    """
    groups: dict[tuple[str, str], dict[str, Row]] = {}
    for row, where in zip(rows, places(rows), strict=True):
        key = _method(row), json.dumps(row["own"])
        groups.setdefault(key, {})[where] = row
    return [
        {
            "method": method,
            "sparsity": _span(
                [r["sparsity"] for r in own.values()], format_share
            ),
            "bytes": _span([r["bytes"] for r in own.values()], format_bytes),
            **{where: _rate_and_points(row) for where, row in own.items()},
        }
        for (method, _), own in groups.items()
    ]


def _span(values: Sequence[float], form: Callable[[float], str]) -> str:
    ends = dict.fromkeys(form(value) for value in (min(values), max(values)))
    return " to ".join(ends)


def _rate_and_points(row: Row) -> str:
    text = f"{100 * row['test']['rate']:.1f}"
    if row["against"]:
        text += f" ({format_points(row['against'])})"
    return text


def summary_columns(rows: Sequence[Row]) -> dict[str, str]:
    """Return the columns of rows that `summary_cells` made."""
    known = {"method", "sparsity", "bytes"}
    found = dict.fromkeys(
        key for row in rows for key in row if key not in known
    )
    return {
        "method": "method",
        "sparsity": "sparsity",
        **{key: key for key in found},
        "bytes": "subnetwork",
    }


def comparison_cells(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return the rows of a comparison as they are shown.

    Arguments
    ---------
    rows : sequence of mapping
        `metrics["rows"]`, as JSON has it.

    Returns
    -------
    list of dict
        Keys of `COMPARISON_COLUMNS`.
    """
    return [
        _cells(row, where)
        for row, where in zip(rows, places(rows), strict=True)
    ]


def _cells(row: Row, where: str) -> dict[str, object]:
    settings = [_chosen(row, key) for key in row["chosen"]]
    against = row["against"]
    seconds = row["seconds_per_batch"]
    return {
        "where": where,
        "method": _method(row),
        "chosen": " ".join(settings) or None,
        "sparsity": format_share(row["sparsity"]),
        "dev": f"{100 * row['dev']:.1f}",
        "test": rate_text(row["test"]),
        "against": against and format_points(against),
        "trained": f"{row['trained']:,}",
        "bytes": format_bytes(row["bytes"]),
        "added": format_bytes(row["adapter_bytes"]),
        "seconds": None if seconds is None else f"{seconds:.3f}",
        "memory": format_bytes(row["peak_memory_bytes"]),
        "seeds": ", ".join(map(str, row["seeds"])),
    }


def places(rows: Sequence[Row]) -> list[str]:
    """Return for each row what it shares with those it is compared with.

    The first setting is always told, further ones where they tell rows apart.

    Example
    -------
    >>> shared = [{"language": "ml", "minutes": m, "epochs": 9} for m in (2, 9)]
    >>> places([{"shared": one} for one in shared])
    ['ml, minutes=2', 'ml, minutes=9']
    """
    shared = [row["shared"] for row in rows]
    kept: list[str] = []
    for key in dict.fromkeys(key for one in shared for key in one):
        known, finer = (
            len({json.dumps([one[k] for k in keys]) for one in shared})
            for keys in (kept, [*kept, key])
        )
        if finer > known or not kept:
            kept.append(key)
    return [
        ", ".join(
            value if isinstance(value := one[key], str) else f"{key}={value}"
            for key in kept
        )
        or "all"
        for one in shared
    ]


def _method(row: Row) -> str:
    others = [f"{k}={v}" for k, v in row["own"].items() if k != "sparsity"]
    return " ".join([row["method"], *others])


def _chosen(row: Row, key: str) -> str:
    """Return a chosen setting, and whether it lies at an end of its list."""
    value, values = row["chosen"][key], row["values"][key]
    text = f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
    numbers = all(type(v) in (int, float) for v in values)
    if numbers and len(values) > 2 and value in (min(values), max(values)):
        text += " (an end)"
    return text
