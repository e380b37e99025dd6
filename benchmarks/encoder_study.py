"""How much pre-training does it take until masks pay off?

    python benchmarks/encoder_study.py benchmarks/results/encoder_*.json

Puts results of `encoder.py` side by side, one of each encoder, over the compute
of its pre-training: snapshots of one run, its end, an untrained one, other
sizes. Prints a table; writes JSON and plot. Computes no error rate itself, and
shows only tasks and labels that all results have. Must not be imported.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from encoder_data import TASKS
from encoder_plot import colour, labels, save_figure
from matplotlib.axes import Axes

from s3router.errors import FormatError, SettingError, exit_on_error
from s3router.evaluation.error_rates import ErrorRate
from s3router.evaluation.results import read_result, write_result
from s3router.evaluation.table_format import format_table

RESULTS = Path(__file__).parent / "results"
COLUMNS = {
    "task": "task",
    "labels": "labels",
    "method": "method",
    "parameters": "parameters",
    "name": "encoder",
    "hours": "hours heard",
    "teraflop": "teraflop",
    "test": "test % [95% CI]",
    "measure": "of",
}
_LINES = ("o-", "s--", "^:", "D-.")  # for each size


def rows_of(path: Path) -> list[dict[str, object]]:
    """Return the tuning results of one encoder's file, with what it is.

    Arguments
    ---------
    path : pathlib.Path
        Written by `encoder.py`.

    Returns
    -------
    list of dict
        `name`, `parameters`, `hours`, `teraflop`, `task`, `minutes`,
        `method`, `measure` and `test`.

    Raises
    ------
    FormatError
        If it is no such file.
    SettingError
        If nothing tells how much audio the encoder has heard.
    """
    result = read_result(path)
    extra = result.get("extra", {})
    if extra.get("benchmark") != "encoder":
        raise FormatError(f"{path} is no result of benchmarks/encoder.py")
    encoder = extra["encoder"]
    if encoder.get("hours_seen") is None:
        raise SettingError(
            f"{path}: nothing beside the weights of {encoder['name']} tells "
            "how much audio it has heard; leave it out"
        )
    return [
        {
            "name": encoder["name"],
            "parameters": encoder["parameters"],
            "hours": encoder["hours_seen"],
            "teraflop": _teraflop(encoder),
            **{key: row[key] for key in ("task", "minutes", "method")},
            "measure": row["measure"],
            "test": ErrorRate.from_dict(row["test"]),
        }
        for row in result["metrics"]["tuning"]
    ]


def common(results: Sequence[Sequence[Mapping]]) -> list[Mapping]:
    """Return the rows of tasks and labels that all results have.

    Arguments
    ---------
    results : sequence of sequence of mapping
        Of `rows_of`, for each encoder.

    Returns
    -------
    list of mapping
        Those rows; the others tell nothing of pre-training.
    """
    cells = [{(r["task"], r["minutes"]) for r in rows} for rows in results]
    shared = set.intersection(*cells)
    return [
        row
        for rows in results
        for row in rows
        if (row["task"], row["minutes"]) in shared
    ]


def _teraflop(encoder: Mapping) -> float:
    """Return the compute of pre-training: 6 x parameters x frames heard.

    Two operations for each weight forward, four backward (Kaplan et al.,
    2020, section 2.1); what attention adds is left out.
    """
    frames = 3600e3 * encoder["hours_seen"] / encoder["frame_milliseconds"]
    return 6 * encoder["parameters"] * frames / 1e12


def in_order(rows: Sequence[Mapping]) -> list[Mapping]:
    """Return the rows by task, labels, method, size and hours."""

    def key(row: Mapping) -> tuple:
        minutes = float("inf") if row["minutes"] is None else row["minutes"]
        size = row["parameters"], row["hours"]
        return row["task"], minutes, row["method"], *size

    return sorted(rows, key=key)


def plot(path: Path, rows: Sequence[Mapping]) -> None:
    """Draw test error over hours heard, a panel for each task and labels.

    Arguments
    ---------
    path : pathlib.Path
        The PNG.
    rows : sequence of mapping
        Of `rows_of`, in order.
    """
    from matplotlib import pyplot

    panels = list(dict.fromkeys((r["task"], r["minutes"]) for r in rows))
    sizes = sorted({row["parameters"] for row in rows})
    figure, axes = pyplot.subplots(
        1,
        len(panels),
        figsize=(3 + 5 * len(panels), 4.5),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    for panel, (task, minutes) in zip(axes[0], panels, strict=True):
        lines: dict[tuple, list[Mapping]] = {}
        for row in rows:
            if (row["task"], row["minutes"]) == (task, minutes):
                key = row["method"], row["parameters"]
                lines.setdefault(key, []).append(row)
        for (method, size), points in lines.items():
            line = _LINES[sizes.index(size) % len(_LINES)]
            _draw(panel, method, size, points, line)
        panel.set_xscale("symlog", linthresh=3, linscale=0.3)
        panel.set_xlabel("compute of pre-training, teraflop")
        panel.set_title(f"{task}, {labels(minutes)} of labels")
    axes[0][0].set_ylabel(f"test {TASKS[panels[0][0]].measure}, %")
    axes[0][0].set_ylim(bottom=0)
    handles, names = axes[0][-1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize="small")
    save_figure(figure, path)


def _draw(
    panel: Axes, method: str, size: int, points: list[Mapping], line: str
) -> None:
    tests = [point["test"] for point in points]
    panel.errorbar(
        [point["teraflop"] for point in points],
        [100 * test.rate for test in tests],
        yerr=[
            [100 * (t.rate - (t.low or 0.0)) for t in tests],
            [100 * ((t.high or t.rate) - t.rate) for t in tests],
        ],
        fmt=line,
        capsize=3,
        color=colour(method),
        label=f"{method}, {size / 1e6:.1f} M",
    )


@exit_on_error
def main(arguments: list[str]) -> None:
    """Read the results, print the table, write JSON and plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", nargs="+", type=Path, metavar="JSON")
    parser.add_argument("--output", type=Path, default=RESULTS / "study.json")
    options = parser.parse_args(arguments)
    rows = in_order(common([rows_of(path) for path in options.results]))
    if not rows:
        raise SettingError("the results have no tuning in common")
    cells = [
        {
            **row,
            "labels": labels(row["minutes"]),
            "parameters": f"{row['parameters'] / 1e6:.1f} M",
            "hours": f"{row['hours']:.0f}",
            "teraflop": f"{row['teraflop']:.0f}",
            "test": str(row["test"]),
        }
        for row in rows
    ]
    print(format_table(cells, COLUMNS))
    write_result(
        options.output,
        config={"results": [path.name for path in options.results]},
        seed=0,
        metrics={"rows": rows},
        extra={"benchmark": "encoder_study"},
    )
    plot(options.output.with_suffix(".png"), rows)
    print(f"\nwritten: {options.output}")


if __name__ == "__main__":
    main(sys.argv[1:])
