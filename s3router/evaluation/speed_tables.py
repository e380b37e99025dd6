"""What `export/benchmark.py` measured, as tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from s3router.evaluation.table_format import format_bytes, format_table

Report = Mapping[str, Any]
LOADING = {
    "language": "language",
    "mode": "mode",
    "own": "own files",
    "load": "load s",
    "load_ratio": "of dense",
    "opened": "opening takes",
    "opened_ratio": "of dense",
    "private": "private, after runs",
    "peak": "peak",
}
SWITCHING = {
    "mode": "mode",
    "switch": "switch ms",
    "median": "median",
    "first": "first",
    "further": "a second one beside it",
    "switched": "switching added",
}


def speed_text(report: Report) -> str:
    """Return a report as text: tables, then why cells are empty.

    Arguments
    ---------
    report : mapping
        Of `s3router.runtime.benchmark_report.benchmark_bundle`; "dense", if
        there is one, holds the "bytes" of what was compared with, or
        "why_not".

    Returns
    -------
    str
        Several tables with lines of explanation.
    """
    bundle = report["bundle"]
    head = (
        f"layout {bundle['layout']}, {bundle['precision']}, "
        f"{format_bytes(bundle['bytes'])} in all"
    )
    dense = report.get("dense") or {}
    if dense.get("bytes"):
        head += f"; dense export of its encoder: {format_bytes(dense['bytes'])}"
    parts = [head, format_table(loading_rows(report), LOADING)]
    rows, columns = running_rows(report)
    if rows:
        parts.append("Real-time factors:\n\n" + format_table(rows, columns))
    if not all(row["why_not"] for row in report["modes"]):
        switching = switching_rows(report)
        parts.append(
            "Change of language:\n\n" + format_table(switching, SWITCHING)
        )
    return "\n\n".join([*parts, "\n".join(reasons(report))]).rstrip()


def loading_rows(report: Report) -> list[dict[str, object]]:
    """Return a row for each language and mode, and one for dense.

    Arguments
    ---------
    report : mapping
        As for `speed_text`.

    Returns
    -------
    list of dict
        Keys of `LOADING`.
    """
    rows = []
    for row in report["rows"]:
        if not rows and row.get("dense"):
            size = (report.get("dense") or {}).get("bytes")
            rows.append(_loading("dense", "fold", size, row["dense"]))
        told = {} if row["why_not"] else row
        rows.append(
            _loading(row["language"], row["mode"], row["own_bytes"], told)
        )
    return rows


def _loading(
    language: str, mode: str, own: int | None, told: Mapping[str, Any]
) -> dict[str, object]:
    row = {"language": language, "mode": mode, "own": format_bytes(own)}
    if not told:
        return row
    return {
        **row,
        "load": _digits(told["load"]["wall"]["minimum"]),
        "load_ratio": _digits(told.get("load_of_dense")),
        "opened": format_bytes(told["opened"]),
        "opened_ratio": _digits(told.get("opened_of_dense")),
        "private": format_bytes(told["run"]["private"]),
        "peak": format_bytes(told["run"]["peak"]),
    }


def running_rows(
    report: Report,
) -> tuple[list[dict[str, object]], dict[str, str]]:
    """Return a row for each language, mode and clip, and the columns.

    Arguments
    ---------
    report : mapping
        As for `speed_text`.

    Returns
    -------
    tuple of list of dict, and dict
        Rows, and column key to title: a device, and its ratio to dense.
    """
    columns = {"language": "language", "mode": "mode", "clip": "audio"}
    dense, rows = _dense_rows(report), []
    for row in report["rows"]:
        devices = row["devices"]
        for name in devices:
            columns[name] = name
            if any("dense" in clip for clip in _clips(row, name).values()):
                columns[f"{name} ratio"] = "of dense"
        clips = [clip for name in devices for clip in _clips(row, name)]
        for clip in _unique(clips):
            shown = {"language": row["language"], "mode": row["mode"]}
            shown["clip"] = clip
            for name in devices:
                told = _clips(row, name).get(clip, {})
                shown[name] = _digits(told.get("real_time_factor"))
                shown[f"{name} ratio"] = _digits(told.get("of_dense"))
            rows.append(shown)
    return [*dense, *rows], columns


def _dense_rows(report: Report) -> list[dict[str, object]]:
    """Return the fastest that dense was beside any of the others."""
    best: dict[str, dict[str, float]] = {}
    for row in report["rows"]:
        for device, told in row["devices"].items():
            for clip, run in _clips(row, device).items():
                if "dense" in run:
                    fastest = run["dense"][told["clock"]]["minimum"]
                    factors = best.setdefault(clip, {})
                    new = fastest / run["seconds"]
                    factors[device] = min(new, factors.get(device, new))
    return [
        {"language": "dense", "mode": "fold", "clip": clip}
        | {device: _digits(value) for device, value in factors.items()}
        for clip, factors in best.items()
    ]


def switching_rows(report: Report) -> list[dict[str, object]]:
    """Return a row for each mode.

    Arguments
    ---------
    report : mapping
        As for `speed_text`.

    Returns
    -------
    list of dict
        Keys of `SWITCHING`.
    """
    return [
        {"mode": row["mode"]}
        if row["why_not"]
        else {
            "mode": row["mode"],
            "switch": f"{1e3 * row['switch']['cpu']['minimum']:.1f}",
            "median": f"{1e3 * row['switch']['cpu']['median']:.1f}",
            "first": f"{1e3 * row['first']['cpu']:.1f}",
            "further": format_bytes(row["further"]),
            "switched": format_bytes(row["switched"]),
        }
        for row in report["modes"]
    ]


def reasons(report: Report) -> list[str]:
    """Return why cells are empty, each reason once.

    Arguments
    ---------
    report : mapping
        As for `speed_text`.

    Returns
    -------
    list of str
        One line each: what, and why.
    """
    found: dict[str, list[str]] = {}
    dense = (report.get("dense") or {}).get("why_not")
    if dense:
        found[dense] = ["dense"]
    for row in report["rows"]:
        if row["why_not"]:
            found.setdefault(row["why_not"], []).append(row["mode"])
            continue
        for name, told in row["devices"].items():
            if told["why_not"]:
                found.setdefault(told["why_not"], []).append(name)
    for row in report["modes"]:
        if row["why_not"]:
            found.setdefault(row["why_not"], []).append("change of language")
    return [
        f"- {', '.join(_unique(what))}: {why}" for why, what in found.items()
    ]


def _clips(row: Mapping[str, Any], device: str) -> Mapping[str, Any]:
    return row["devices"][device].get("clips", {})


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _digits(value: float | None) -> str | None:
    """Return a number with three digits that count."""
    return None if value is None else f"{value:.3g}"
