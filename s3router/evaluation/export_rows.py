"""Results of `benchmarks/export.py` to rows of tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from s3router.evaluation.aggregate import Result
from s3router.evaluation.table_format import format_bytes, format_share

EXPORT_COLUMNS = {
    "shape": "encoder",
    "variant": "bundle",
    "removed": "removed",
    "mode": "mode",
    "own": "a language",
    "sent": "packed",
    "shared": "shared",
    "opened": "opening takes",
    "load": "loading, of dense",
    "one": "one thread, of dense",
    "more": "more threads, of dense",
    "gpu": "CUDA, of dense",
    "why": "not available",
}
BAR_COLUMNS = {
    "shape": "encoder",
    "what": "what",
    "bar": "bar",
    "measured": "measured",
    "verdict": "reached?",
}
_REMOVED = {
    "all": "{} of all linears",
    "overlapping": "{} of all linears, 95% in common",
    "feed_forward": "{} of feed-forward",
    "structured": "{} of heads and channels",
    "front_end": "{} of heads and channels, front end too",
}


def export_rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """Return the rows of the table of bundles.

    Arguments
    ---------
    results : sequence of mapping
        Of `benchmarks/export.py`: `metrics` holds `dense` and `rows`.

    Returns
    -------
    list of dict
        Keys of `EXPORT_COLUMNS`, values as they are shown. Times of dense
        come clip by clip, as in "1.01 / 1.00".
    """
    rows = []
    for result in results:
        shape = result["extra"]["shape"]
        metrics, command = result["metrics"], result["command"]
        dense = next((r["dense"] for r in metrics["rows"] if "dense" in r), {})
        rows.append(
            {
                "shape": shape,
                "variant": "dense",
                "removed": "nothing",
                "mode": "fold",
                "own": format_bytes(metrics["dense"]["bytes"]),
                "opened": format_bytes(dense.get("opened")),
                "command": command,
            }
        )
        for row in metrics["rows"]:
            rows.append({"shape": shape, **_shown(row), "command": command})
    return rows


def bar_rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """Return the rows of the table of what exports must reach.

    Arguments
    ---------
    results : sequence of mapping
        Of `benchmarks/export.py`: `metrics` holds `bars`.

    Returns
    -------
    list of dict
        Keys of `BAR_COLUMNS`.
    """
    shown = ("what", "bar", "measured", "verdict")
    return [
        {
            "shape": result["extra"]["shape"],
            **{key: bar[key] for key in shown},
            "command": result["command"],
        }
        for result in results
        for bar in result["metrics"]["bars"]
    ]


def _shown(row: Mapping[str, Any]) -> dict[str, object]:
    names = list(row["devices"])
    more = [name for name in names if name.endswith("threads")]
    return {
        "variant": row["variant"],
        "removed": _REMOVED[row["masks"]].format(format_share(row["sparsity"])),
        "mode": row["mode"],
        "own": format_bytes(row.get("own_bytes")),
        "shared": format_bytes(row.get("shared_bytes")),
        "opened": format_bytes(row.get("opened")),
        "load": _number(row.get("load_of_dense")),
        "one": _ratios(row, "1 thread"),
        "more": _ratios(row, more[-1] if more else ""),
        "gpu": _ratios(row, "CUDA"),
        "sent": format_bytes(row.get("transport", {}).get("bytes")),
        "why": row["why_not"],
    }


def _ratios(row: Mapping[str, Any], device: str) -> str | None:
    clips = row["devices"].get(device, {}).get("clips", {})
    ratios = [_number(clip.get("of_dense")) for clip in clips.values()]
    return " / ".join(ratios) if ratios and all(ratios) else None


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"
