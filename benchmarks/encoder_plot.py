"""Plots of tuning results: one encoder's; what all plots share."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from encoder_data import TASKS
from matplotlib.figure import Figure

from s3router.formats.files import atomic_file

# No window is ever opened.
matplotlib.use("Agg")

_COLOURS = {
    "head_only": "#888888",
    "lora": "#d98c1f",
    "full": "#2b6cb0",
    "mask_tuning": "#b02b4e",
}


def colour(method: str) -> str | None:
    """Return a method's colour, the same in all plots; None: whichever."""
    return _COLOURS.get(method)


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
            color=colour(method),
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
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, and close it."""
    from matplotlib import pyplot

    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    pyplot.close(figure)
