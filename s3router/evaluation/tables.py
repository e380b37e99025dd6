"""Fill the tables of README files from result JSONs: `make results`.

A table stands between two comments that start a line, `<!-- results:NAME -->`
and `<!-- /results:NAME -->`; what is between them is replaced. Nobody types a
number into a README: a test runs this file with `--check`.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from s3router.errors import NotFoundError, S3RouterError, SettingError, near
from s3router.evaluation.results import read_result
from s3router.evaluation.table_format import csv_table, markdown_table
from s3router.evaluation.table_registry import TABLES, Rows
from s3router.formats.files import atomic_file

_BLOCK = re.compile(
    r"^(?P<open><!-- results:(?P<name>[\w-]+) -->).*?"
    r"^(?P<close><!-- /results:(?P=name) -->)",
    re.DOTALL | re.MULTILINE,
)
_OPENING = re.compile(r"^<!-- results:([\w-]+) -->", re.MULTILINE)


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
        Markdown: the table, how to read it, and the commands behind it
        unless the table leaves them out.
    """
    results = read_results(name, root)
    if not results:
        return f"No results yet in `{TABLES[name].pattern}`."
    rows = TABLES[name].rows(results)
    table = markdown_table(rows, _columns(name, rows))
    machines = sorted({_machine(result) for result in results})
    parts = [table, f"{TABLES[name].note} Made on: {'; '.join(machines)}."]
    if TABLES[name].commands:
        parts.append(_commands(rows))
    return "\n\n".join(parts)


def _columns(name: str, rows: Rows) -> dict[str, str]:
    columns = TABLES[name].columns
    columns = dict(columns(rows) if callable(columns) else columns)
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
