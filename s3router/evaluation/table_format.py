"""Rows to text: aligned for a terminal, Markdown for a README, CSV.

It knows nothing of what the rows say; see `tables.py` for that.
"""

import csv
import io
import unicodedata
from collections.abc import Mapping, Sequence

Row = Mapping[str, object]
Columns = Mapping[str, str]


def format_table(rows: Sequence[Row], columns: Columns) -> str:
    """Return rows as aligned plain text, for a terminal.

    Arguments
    ---------
    rows : sequence of mapping
        Column key to value; a missing key or None prints as "-".
    columns : mapping
        Column key to title, in order.

    Returns
    -------
    str
        A title line, a rule, one line per row. Columns of numbers are set
        to the right; wide characters (Chinese) count as two.

    Example
    -------
    >>> rows = [{"name": "zh", "cer": 9.5}, {"name": "es", "cer": 12.25}]
    >>> print(format_table(rows, {"name": "language", "cer": "CER"}))
    language    CER
    --------  -----
    zh          9.5
    es        12.25
    """
    cells = [[_cell(row.get(key)) for key in columns] for row in rows]
    right = [_numeric(rows, key) for key in columns]
    titles = list(columns.values())
    widths = [
        max(map(_width, column)) for column in zip(titles, *cells, strict=True)
    ]
    rule = ["-" * width for width in widths]
    lines = [
        "  ".join(map(_pad, line, widths, right)).rstrip()
        for line in (titles, rule, *cells)
    ]
    return "\n".join(lines)


def markdown_table(rows: Sequence[Row], columns: Columns) -> str:
    """Return rows as a Markdown table.

    Arguments
    ---------
    rows : sequence of mapping
        As for `format_table`.
    columns : mapping
        Column key to title, in order.

    Returns
    -------
    str
        The table, without a newline at its end.

    Example
    -------
    >>> print(markdown_table([{"a": 1}], {"a": "A|B"}))
    | A\\|B |
    | ---: |
    | 1 |
    """
    rules = ["---:" if _numeric(rows, key) else "---" for key in columns]
    cells = [[_cell(row.get(key)) for key in columns] for row in rows]
    lines = [list(map(_escape, columns.values())), rules]
    lines += [list(map(_escape, line)) for line in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def csv_table(rows: Sequence[Row], columns: Columns) -> str:
    """Return rows as CSV with the titles as its first line.

    Arguments
    ---------
    rows : sequence of mapping
        As for `format_table`.
    columns : mapping
        Column key to title, in order.

    Returns
    -------
    str
        The CSV, each line ended by a newline.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns.values())
    writer.writerows([_cell(row.get(key)) for key in columns] for row in rows)
    return text.getvalue()


def format_bytes(count: int | float | None) -> str:
    """Return a size in decimal units, as disks and downloads count.

    Arguments
    ---------
    count : int or float, optional
        Bytes.

    Returns
    -------
    str
        As in "812 B", "10.6 MB"; "-" for None.

    Example
    -------
    >>> format_bytes(10_616_832)
    '10.6 MB'
    """
    if count is None:
        return "-"
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.95 or unit == "GB":
            break
    return f"{count:.1f} {unit}"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(str(value).split())


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _numeric(rows: Sequence[Row], key: str) -> bool:
    values = [row.get(key) for row in rows]
    return any(value is not None for value in values) and all(
        value is None
        or (isinstance(value, int | float) and not isinstance(value, bool))
        for value in values
    )


def _width(text: str) -> int:
    return sum(
        0
        if unicodedata.combining(letter)
        else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def format_share(share: float | None) -> str:
    """Return a share in percent, without needless digits.

    Arguments
    ---------
    share : float, optional
        A fraction, as a sparsity.

    Returns
    -------
    str
        As in "50%", "12.5%"; "-" for None.

    Example
    -------
    >>> format_share(0.5), format_share(0.125), format_share(None)
    ('50%', '12.5%', '-')
    """
    return "-" if share is None else f"{round(100 * share, 1):g}%"


def format_points(difference: Mapping[str, float]) -> str:
    """Return a difference and its interval in percentage points.

    Example
    -------
    >>> format_points({"difference": -0.05, "low": -0.1, "high": 0.0})
    '-5.0 [-10.0, +0.0]'
    """
    values = (100 * difference[key] for key in ("difference", "low", "high"))
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*values)
