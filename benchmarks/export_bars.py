"""What exports must reach, beside what was measured.

The bars are those of the shape wav2vec2-base; each says where in the results
its number is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s3router.evaluation.table_format import format_bytes

#: The shape for which the bars were set.
SHAPE = "wav2vec2-base"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Bar:
    """One thing to reach; smaller is better.

    Arguments
    ---------
    what : str
        For people.
    bar : float
        The largest value that passes.
    unit : str
        `bytes`, `ms` or `x`.
    variant : str
        The row that has it.
    mode : str, optional
        Of that row; None where only sizes were measured.
    measured : callable
        Returns the value from the row, None where it has none.
    """

    what: str
    bar: float
    unit: str
    variant: str
    mode: str | None
    measured: Callable[[Row], float | None]


def run_ratio(row: Row, device: str = "1 thread") -> float | None:
    """Return the time of all clips together, of dense.

    Arguments
    ---------
    row : mapping
        Of `measure_row`.
    device : str
        Name of the device.

    Returns
    -------
    float or None
        A ratio of sums of minima, by the clock that counts there.
    """
    told = row["devices"].get(device, {})
    clips = list(told.get("clips", {}).values())
    if not clips or "dense" not in clips[0]:
        return None
    clock = told["clock"]
    ours = sum(clip[clock]["minimum"] for clip in clips)
    return ours / sum(clip["dense"][clock]["minimum"] for clip in clips)


def _beside_head(row: Row) -> float:
    return row["own_bytes"] - row["head_bytes"]


def _switching(row: Row) -> float | None:
    switch = row.get("switching", {}).get("switch")
    return switch and 1e3 * switch["cpu"]["median"]


def _of_bound(row: Row) -> float | None:
    return row["transport"].get("of_bound")


BARS = (
    Bar(
        "a language beside its head, masks on all linears",
        *(11e6, "bytes", "shared", "fold", _beside_head),
    ),
    Bar(
        "a language beside its head, masks on feed-forward",
        *(7.5e6, "bytes", "shared_feed_forward", None, _beside_head),
    ),
    Bar(
        "a language beside its head, structured",
        *(150e3, "bytes", "shared_structured", "fold", _beside_head),
    ),
    Bar("fold: run time", 1.03, "x", "shared", "fold", run_ratio),
    Bar(
        "fold: memory after loading",
        *(1.05, "x", "shared", "fold", lambda row: row.get("opened_of_dense")),
    ),
    Bar(
        "lean: private memory to open, Python included",
        *(100e6, "bytes", "shared", "lean"),
        lambda row: row["loaded"]["private"],
    ),
    Bar(
        "lean: a further language",
        *(20e6, "bytes", "shared", "lean"),
        lambda row: row.get("switching", {}).get("further"),
    ),
    Bar(
        "switch: change of language, one thread",
        *(50.0, "ms", "shared", "switch", _switching),
    ),
    Bar("switch: run time", 1.08, "x", "shared", "switch", run_ratio),
    Bar(
        "structured, 50% of heads and channels: run time",
        *(0.70, "x", "shared_structured", "fold", run_ratio),
    ),
    Bar(
        "... with front-end channels halved too",
        *(0.45, "x", "shared_front_end", "fold", run_ratio),
    ),
    Bar("int8: run time", 0.85, "x", "int8", "fold", run_ratio),
    Bar(
        "int8: size of the backbone, of dense",
        *(1 / 3, "x", "int8", "fold", lambda row: row.get("shared_of_dense")),
    ),
    Bar(
        "transport of 10% masks, of the entropy bound",
        *(1.03, "x", "shared_10", None, _of_bound),
    ),
    Bar(
        "... where languages have 95% in common",
        *(1.0, "x", "shared_overlap", None, _of_bound),
    ),
)


def compare_bars(
    rows: Sequence[Row], shape: str, bars: Sequence[Bar] = BARS
) -> list[dict[str, Any]]:
    """Put what was measured beside each bar.

    Arguments
    ---------
    rows : sequence of mapping
        Of `measure_row`, with "variant" and sizes.
    shape : str
        Of the encoder; nothing is said to be reached or missed for another
        one than `SHAPE`.
    bars : sequence of Bar
        What to reach.

    Returns
    -------
    list of dict
        "what", "bar", "measured" (texts), "value", "limit" (numbers; None
        where nothing was measured), "verdict": `reached`, `missed by ...`, or
        why there is none.
    """
    found = {(row["variant"], row["mode"]): row for row in rows}
    return [
        _compare(bar, found.get((bar.variant, bar.mode)), shape) for bar in bars
    ]


def _compare(bar: Bar, row: Row | None, shape: str) -> dict[str, Any]:
    value, verdict = None, "not measured"
    if row is not None and row["why_not"]:
        verdict = f"not available: {row['why_not']}"
    elif row is not None and (value := bar.measured(row)) is None:
        verdict = row.get("transport", {}).get("why_not") or verdict
    elif row is not None:
        verdict = f"a bar of {SHAPE}"
        if shape == SHAPE:
            over = _text(value - bar.bar, bar.unit)
            verdict = "reached" if value <= bar.bar else f"missed by {over}"
    return {
        "what": bar.what,
        "bar": _text(bar.bar, bar.unit),
        "measured": None if value is None else _text(value, bar.unit),
        "verdict": verdict,
        "value": value,
        "limit": bar.bar,
    }


def _text(value: float, unit: str) -> str:
    if unit == "bytes":
        return format_bytes(value)
    return f"{value:.1f} ms" if unit == "ms" else f"{value:.3f}x"
