"""Rows as tables (Markdown, CSV, JSON) and as a plot over sparsity."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from s3router.comparison.spec import Comparison
from s3router.evaluation.comparison_rows import (
    COMPARISON_COLUMNS,
    comparison_cells,
    places,
    summary_cells,
    summary_columns,
)
from s3router.evaluation.results import portable, write_result
from s3router.evaluation.table_format import (
    csv_table,
    format_table,
    markdown_table,
)
from s3router.formats.files import atomic_file

Row = Mapping[str, object]

#: After ten colours others begin.
_MARKERS = ("o", "s", "^", "v")
_LINES = ("--", ":", "-.")


def print_table(comparison: Comparison, rows: Sequence[Row]) -> None:
    """Print the rows on the terminal, and below them a summary of places."""
    plain = portable(rows, "rows")
    print(format_table(comparison_cells(plain), _columns(comparison)))
    summary = summary_cells(plain)
    if len(summary) < len(rows):
        print(f"\ntest CER % (points against {comparison.baseline} [95% CI])")
        print(format_table(summary, summary_columns(summary)))
    runs = sum(row["runs"] for row in rows)
    print(f"{runs} runs, {_hours(rows):.1f} h of training in all")


def write_report(
    comparison: Comparison, rows: Sequence[Row], settings: Mapping
) -> list[Path]:
    """Write result.json, table.md, table.csv, and plot.png and plot.svg.

    Arguments
    ---------
    comparison : Comparison
        What was run.
    rows : sequence of mapping
        Of `rows_of`; at least one.
    settings : mapping
        Of the command; with the values that were searched they are the
        budget of the comparison, and go into the JSON.

    Returns
    -------
    list of pathlib.Path
        What was written.
    """
    folder = comparison.output
    cells = comparison_cells(portable(rows, "rows"))
    columns = _columns(comparison)
    written = [
        folder / name for name in ("result.json", "table.md", "table.csv")
    ]
    write_result(
        written[0],
        config={
            **settings,
            "baseline": comparison.baseline,
            "cells": {
                cell.name: {
                    "yaml": cell.yaml,
                    "settings": cell.settings({}, cell.seeds[0]),
                    "search": cell.search,
                    "seeds": list(cell.seeds),
                }
                for cell in comparison.cells
            },
        },
        seed=min(seed for row in rows for seed in row["seeds"]),
        metrics={"rows": list(rows)},
        extra={
            "comparison": comparison.output.name,
            "runs": sum(row["runs"] for row in rows),
            "training_hours": round(_hours(rows), 2),
        },
    )
    tables = (markdown_table(cells, columns) + "\n", csv_table(cells, columns))
    for path, text in zip(written[1:], tables, strict=True):
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [*written, *draw(folder / "plot", comparison, rows)]


def _hours(rows: Sequence[Row]) -> float:
    return sum(row["training_seconds"] for row in rows) / 3600


def draw(path: Path, comparison: Comparison, rows: Sequence[Row]) -> list[Path]:
    """Draw test error over sparsity, a line a method, as PNG and SVG.

    Methods without masks are horizontal lines.

    Arguments
    ---------
    path : pathlib.Path
        Without its ending.
    comparison : Comparison
        Names the baseline.
    rows : sequence of mapping
        Of `rows_of`.
    """
    import matplotlib

    # No window is ever opened.
    matplotlib.use("Agg")
    from matplotlib import pyplot

    where = places(rows)
    titles = list(dict.fromkeys(where))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, panels = pyplot.subplots(
        1,
        len(titles),
        figsize=(1.5 + 4.5 * len(titles), 4.5),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    for panel, title in zip(panels[0], titles, strict=True):
        for number, method in enumerate(methods):
            own = [
                row
                for row, here in zip(rows, where, strict=True)
                if row["method"] == method and here == title
            ]
            _line(panel, own, method, number)
        panel.set_title(title)
        panel.set_xlabel("sparsity, % of the masked weights")
    panels[0][0].set_ylabel("test CER, %")
    panels[0][0].set_ylim(bottom=0)
    panels[0][-1].legend(fontsize="small")
    files = [path.with_suffix(f".{kind}") for kind in ("png", "svg")]
    for file in files:
        with atomic_file(file) as temporary:
            figure.savefig(temporary, dpi=120, format=file.suffix[1:])
    pyplot.close(figure)
    return files


def _line(panel: object, rows: Sequence[Row], method: str, number: int) -> None:
    colour, marker = f"C{number % 10}", _MARKERS[number // 10 % len(_MARKERS)]
    rows = sorted(rows, key=lambda row: row["sparsity"])
    if not rows:
        return
    if all(row["sparsity"] == 0 for row in rows):
        best = min(rows, key=lambda row: row["dev"])["test"]
        panel.axhline(
            100 * best.rate,
            color=colour,
            ls=_LINES[number // 10 % 3],
            label=method,
        )
        if best.high is not None:
            panel.axhspan(
                100 * best.low, 100 * best.high, color=colour, alpha=0.1
            )
        return
    tests = [row["test"] for row in rows]
    panel.errorbar(
        [100 * row["sparsity"] for row in rows],
        [100 * test.rate for test in tests],
        yerr=[
            [100 * (t.rate - (t.low or 0.0)) for t in tests],
            [100 * ((t.high or t.rate) - t.rate) for t in tests],
        ],
        fmt=f"{marker}-",
        capsize=3,
        color=colour,
        label=method,
    )


def _columns(comparison: Comparison) -> dict[str, str]:
    against = f"points against {comparison.baseline} [95% CI]"
    return {**COMPARISON_COLUMNS, "against": against}
