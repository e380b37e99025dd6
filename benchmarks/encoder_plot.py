"""The plot of one encoder's tuning results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from encoder_data import TASKS

from s3router.formats.files import atomic_file

_COLOURS = {
    "head_only": "#888888",
    "lora": "#d98c1f",
    "full": "#2b6cb0",
    "mask_tuning": "#b02b4e",
}


def labels(minutes: float | None) -> str:
    """Return labelled minutes in words."""
    return "all" if minutes is None else f"{minutes:g} min"


def plot(path: Path, name: str, rows: Sequence[Mapping]) -> None:
    """Draw the test error of each method on each task, with intervals.

    Arguments
    ---------
    path : pathlib.Path
        The PNG.
    name : str
        Of the encoder.
    rows : sequence of mapping
        Of `tuning_row`.
    """
    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = list(dict.fromkeys((r["task"], r["minutes"]) for r in rows))
    methods = list(dict.fromkeys(r["method"] for r in rows))
    figure, axes = pyplot.subplots(
        figsize=(2 + 1.5 * len(groups), 4), layout="constrained"
    )
    for number, method in enumerate(methods):
        own = [row for row in rows if row["method"] == method]
        shift = (number - (len(methods) - 1) / 2) * 0.15
        tests = [row["test"] for row in own]
        axes.errorbar(
            [groups.index((r["task"], r["minutes"])) + shift for r in own],
            [100 * test.rate for test in tests],
            yerr=[
                [100 * (t.rate - (t.low or 0.0)) for t in tests],
                [100 * ((t.high or t.rate) - t.rate) for t in tests],
            ],
            fmt="o",
            capsize=3,
            color=_COLOURS.get(method),
            label=method,
        )
    axes.set_xticks(
        range(len(groups)),
        [f"{t}\n{labels(m)}, {TASKS[t].measure}" for t, m in groups],
    )
    axes.set_ylabel("test error, %")
    axes.set_ylim(bottom=0)
    axes.set_title(f"{name}: mean over seeds, 95% interval")
    axes.legend()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    pyplot.close(figure)
