"""Results of `s3router compare` to rows of a table."""

from collections.abc import Mapping, Sequence

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
        {**comparison_cells(row), "command": result["command"]}
        for result in results
        for row in result["metrics"]["rows"]
    ]


def comparison_cells(row: Row) -> dict[str, object]:
    """Return one row of a comparison as it is shown.

    Arguments
    ---------
    row : mapping
        Of `metrics["rows"]`, as JSON has it.

    Returns
    -------
    dict
        Keys of `COMPARISON_COLUMNS`.
    """
    settings = [_chosen(row, key) for key in row["chosen"]]
    others = [f"{k}={v}" for k, v in row["own"].items() if k != "sparsity"]
    against = row["against"]
    seconds = row["seconds_per_batch"]
    return {
        "where": place(row),
        "method": " ".join([row["method"], *others]),
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


def place(row: Row) -> str:
    """Return what a row shares with those that it is compared with."""
    return ", ".join(str(value) for value in row["shared"].values()) or "all"


def _chosen(row: Row, key: str) -> str:
    """Return a chosen setting, and whether it lies at an end of its list."""
    value, values = row["chosen"][key], row["values"][key]
    text = f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
    numbers = all(type(v) in (int, float) for v in values)
    if numbers and len(values) > 2 and value in (min(values), max(values)):
        text += " (an end)"
    return text
