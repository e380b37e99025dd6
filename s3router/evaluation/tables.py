"""Fill the tables of README files from result JSONs: `make results`.

A table stands between two comments that start a line, `<!-- results:NAME -->`
and `<!-- /results:NAME -->`; what is between them is replaced. Nobody types a
number into a README: a test runs this file with `--check`.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from s3router.errors import NotFoundError, S3RouterError, SettingError, near
from s3router.evaluation.aggregate import (
    QUICKSTART_COLUMNS,
    RECIPE_COLUMNS,
    quickstart_rows,
    recipe_rows,
)
from s3router.evaluation.benchmark_rows import (
    CONTROL_COLUMNS,
    ENCODER_COLUMNS,
    PROBE_COLUMNS,
    STUDY_COLUMNS,
    control_rows,
    encoder_rows,
    probe_rows,
    study_rows,
)
from s3router.evaluation.export_rows import (
    BAR_COLUMNS,
    EXPORT_COLUMNS,
    bar_rows,
    export_rows,
)
from s3router.evaluation.results import read_result
from s3router.evaluation.table_format import csv_table, markdown_table
from s3router.formats.files import atomic_file

Rows = list[dict[str, object]]
_BLOCK = re.compile(
    r"^(?P<open><!-- results:(?P<name>[\w-]+) -->).*?"
    r"^(?P<close><!-- /results:(?P=name) -->)",
    re.DOTALL | re.MULTILINE,
)
_OPENING = re.compile(r"^<!-- results:([\w-]+) -->", re.MULTILINE)
SEEDS_NOTE = (
    "Rates in percent with 95% bootstrap intervals over test utterances; "
    "several seeds are one row: mean ± 1.96·sqrt(mean test-set variance + "
    "seed variance / seeds). Where a language is written without spaces, a "
    "word of the WER is a whole sentence."
)


@dataclass(frozen=True)
class Table:
    """A table that README files may hold.

    Arguments
    ---------
    pattern : str
        Where its results lie, relative to the root of the repository.
    columns : mapping
        Column key to title.
    rows : callable
        Makes the rows from the results.
    note : str
        A line under the table.
    """

    pattern: str
    columns: Mapping[str, str]
    rows: Callable[[Sequence[Mapping[str, object]]], Rows]
    note: str


def _all_quickstart_rows(results: Sequence[Mapping[str, object]]) -> Rows:
    return [
        {**row, "command": result["command"]}
        for result in results
        for row in quickstart_rows(result["metrics"]["rows"])
    ]


TABLES = MappingProxyType(
    {
        "commonvoice": Table(
            "recipes/commonvoice/results/*.json",
            RECIPE_COLUMNS,
            recipe_rows,
            SEEDS_NOTE,
        ),
        "encoder": Table(
            "benchmarks/results/encoder_tiny*.json",
            ENCODER_COLUMNS,
            encoder_rows,
            "Real speech, test speakers unseen. Each method's rate was chosen "
            "on dev among as many; stored is what a method adds to the head. "
            "Differences are paired over test clips and seeds.",
        ),
        "probes": Table(
            "benchmarks/results/probes_tiny.json",
            PROBE_COLUMNS,
            probe_rows,
            "Frozen features, speakers of the test unseen but where the "
            "speaker is asked. Layers and steps were chosen on dev. Accuracy: "
            "more is better; PER and CER: less.",
        ),
        "study": Table(
            "benchmarks/results/study.json",
            STUDY_COLUMNS,
            study_rows,
            "Real speech, test speakers unseen, one labelled draw; the rates "
            "are those that dev chose on the embedded encoder. Teraflop: 6 x "
            "parameters x frames heard.",
        ),
        "controls": Table(
            "benchmarks/results/controls_tiny.json",
            CONTROL_COLUMNS,
            control_rows,
            "Real speech, test speakers unseen. Each row's rate was chosen on "
            "dev among as many; differences are paired over test clips.",
        ),
        "export": Table(
            "benchmarks/results/export_*.json",
            EXPORT_COLUMNS,
            export_rows,
            "Random weights and masks. Each bundle ran in turns with the dense "
            "fp32 export, 5 and 15 s of audio; minima of process time (one "
            "thread) or wall time. Opening takes: private memory.",
        ),
        "export-bars": Table(
            "benchmarks/results/export_wav2vec2-base.json",
            BAR_COLUMNS,
            bar_rows,
            "From the table of bundles; run times are those of its clips "
            "together, on one thread.",
        ),
        "quickstart": Table(
            "recipes/commonvoice/results/synthetic/*.json",
            QUICKSTART_COLUMNS,
            _all_quickstart_rows,
            "Synthetic speech. Rates in percent with 95% bootstrap intervals "
            "over test utterances.",
        ),
    }
)


def read_results(name: str, root: str | Path) -> list[dict[str, object]]:
    """Read the results behind a table.

    Arguments
    ---------
    name : str
        A key of `TABLES`.
    root : str or pathlib.Path
        The root of the repository.

    Returns
    -------
    list of dict
        In the order of their file names; empty if there are none yet.

    Raises
    ------
    SettingError
        If there is no such table.
    FormatError
        If a file is not a result.
    """
    if name not in TABLES:
        raise SettingError(
            f"no table {name!r}: {near(name, TABLES)}Known: {', '.join(TABLES)}"
        )
    paths = sorted(Path(root).glob(TABLES[name].pattern))
    return [read_result(path) for path in paths]


def render(name: str, root: str | Path) -> str:
    """Return what stands between a table's comments.

    Arguments
    ---------
    name : str
        A key of `TABLES`.
    root : str or pathlib.Path
        The root of the repository.

    Returns
    -------
    str
        Markdown: the table, how to read it, and the commands behind it.
    """
    results = read_results(name, root)
    if not results:
        return f"No results yet in `{TABLES[name].pattern}`."
    rows = TABLES[name].rows(results)
    table = markdown_table(rows, _columns(name, rows))
    machines = sorted({_machine(result) for result in results})
    return "\n\n".join(
        [
            table,
            f"{TABLES[name].note} Made on: {'; '.join(machines)}.",
            _commands(rows),
        ]
    )


def _columns(name: str, rows: Rows) -> dict[str, str]:
    columns = dict(TABLES[name].columns)
    if any("note" in row for row in rows):
        columns["note"] = "differs in"
    return columns


def _machine(result: Mapping[str, object]) -> str:
    facts = result["machine"]
    name = f"{facts['cpu']}, {facts['cores']} cores"
    return f"{name}, {facts['gpu']}" if facts["gpu"] else name


def _commands(rows: Rows) -> str:
    commands = dict.fromkeys(str(row["command"]) for row in rows)
    return "\n".join(
        [
            "<details><summary>Commands</summary>",
            "",
            "One per row, with its first seed:",
            "",
            "```sh",
            *commands,
            "```",
            "",
            "</details>",
        ]
    )


def fill(text: str, root: str | Path) -> str:
    """Return a Markdown text with all its tables made anew.

    Arguments
    ---------
    text : str
        The Markdown.
    root : str or pathlib.Path
        The root of the repository.

    Returns
    -------
    str
        The same text with what stands between the comments replaced.

    Raises
    ------
    SettingError
        If a comment names no table, or is not closed.
    """
    opened = _OPENING.findall(text)
    closed = [found["name"] for found in _BLOCK.finditer(text)]
    for name in opened:
        if name not in closed:
            raise SettingError(f"no <!-- /results:{name} --> after its start")
    return _BLOCK.sub(
        lambda found: (
            f"{found['open']}\n"
            f"<!-- made by `make results`; do not edit -->\n\n"
            f"{render(found['name'], root)}\n\n"
            f"{found['close']}"
        ),
        text,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the tables of files, or check that they are up to date.

    Arguments
    ---------
    arguments : sequence of str, optional
        Of the command line; default is `sys.argv`.

    Returns
    -------
    int
        0, 1 if `--check` found an old table, or 2 after an error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m s3router.evaluation.tables", description=__doc__
    )
    parser.add_argument("files", nargs="+", type=Path, help="Markdown files")
    parser.add_argument(
        "--root", type=Path, default=Path(), help="root of the repository"
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; 1 if not equal"
    )
    parser.add_argument(
        "--csv", metavar="NAME", help="print this table as CSV as well"
    )
    options = parser.parse_args(arguments)
    try:
        old = [path for path in options.files if _update(path, options)]
        if options.csv:
            results = read_results(options.csv, options.root)
            rows = TABLES[options.csv].rows(results)
            print(csv_table(rows, _columns(options.csv, rows)), end="")
    except S3RouterError as error:
        print(f"s3router: error: {error}", file=sys.stderr)
        return error.exit_code
    for path in old:
        print(f"{path}: {'is not up to date' if options.check else 'filled'}")
    return int(options.check and bool(old))


def _update(path: Path, options: argparse.Namespace) -> bool:
    """Fill one file; return whether its text differed."""
    if not path.is_file():
        raise NotFoundError(f"no such file: {path}")
    text = path.read_text(encoding="utf-8")
    filled = fill(text, options.root)
    if filled != text and not options.check:
        with atomic_file(path) as temporary:
            temporary.write_text(filled, encoding="utf-8")
    return filled != text


if __name__ == "__main__":
    sys.exit(main())
