"""Tables as text: aligned, Markdown, CSV."""

import csv
import io

from s3router.evaluation.table_format import (
    csv_table,
    format_bytes,
    format_points,
    format_share,
    format_table,
    markdown_table,
)

COLUMNS = {"language": "language", "rate": "CER", "ok": "same"}
ROWS = [
    {"language": "中文", "rate": 9.5, "ok": True},
    {"language": "español", "rate": 12.25, "ok": False},
    {"language": "a|b", "rate": None},
]


def test_terminal_columns_line_up_with_wide_letters():
    lines = format_table(ROWS, COLUMNS).splitlines()
    assert lines[0] == "language    CER  same"
    assert lines[2] == "中文        9.5  yes"
    assert lines[3] == "español   12.25  no"
    assert lines[4] == "a|b           -  -"
    assert len(lines) == 5


def test_a_table_without_rows_has_its_titles():
    assert format_table([], COLUMNS).splitlines()[0] == "language  CER  same"


def test_markdown_escapes_bars_and_aligns_numbers():
    lines = markdown_table(ROWS, COLUMNS).splitlines()
    assert lines[1] == "| --- | ---: | --- |"
    assert lines[4] == r"| a\|b | - | - |"


def test_csv_is_read_back():
    table = list(csv.reader(io.StringIO(csv_table(ROWS, COLUMNS))))
    assert table[0] == ["language", "CER", "same"]
    assert table[1] == ["中文", "9.5", "yes"]
    assert table[3] == ["a|b", "-", "-"]


def test_sizes():
    texts = [format_bytes(n) for n in (0, 999, 1000, 999_960, 2.5e9, 4e12)]
    assert texts == ["0 B", "999 B", "1.0 kB", "1.0 MB", "2.5 GB", "4000.0 GB"]
    assert format_bytes(None) == "-"


def test_shares():
    texts = [format_share(s) for s in (0.0, 0.06, 0.501, 0.1234, None)]
    assert texts == ["0%", "6%", "50.1%", "12.3%", "-"]


def test_points_have_signs():
    difference = {"difference": 0.021, "low": -0.0004, "high": 0.05}
    assert format_points(difference) == "+2.1 [-0.0, +5.0]"
