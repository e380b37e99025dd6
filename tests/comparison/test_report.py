"""What a comparison runs, and the files and tables that it leaves."""

import csv

import pytest
from comparison_command import order, run

from s3router.evaluation.comparison_rows import (
    COMPARISON_COLUMNS,
    comparison_rows,
)
from s3router.evaluation.error_rates import ErrorRate
from s3router.evaluation.results import read_result


def test_all_is_searched_on_dev_then_run_with_every_seed(
    comparison, tmp_path, capsys
):
    text = comparison.read_text().replace("[ar]", "[zh-CN, ar]")
    comparison.write_text(text)
    assert run(comparison) == 0
    out = tmp_path / "out"
    runs = order(tmp_path)
    # 2 languages x 3 rows x 2 values; then 2 seeds of each row.
    assert len(runs) == 2 * 3 * (2 + 2)
    assert sum(line.endswith("False") for line in runs) == 12
    # The searches are of the first seed, and none of them reads test.
    assert all(line.endswith("1 False") for line in runs if "False" in line)

    rows = read_result(out / "result.json")["metrics"]["rows"]
    assert len(rows) == 6
    by_name = {
        (r["shared"]["language"], r["method"], r["own"].get("sparsity")): r
        for r in rows
    }
    full = by_name["ar", "full", None]
    assert full["chosen"] == {"lr_weights": 0.02}
    assert full["searched"] == pytest.approx(
        {"lr_weights=0.01": 0.2, "lr_weights=0.02": 0.15}
    )
    assert full["seeds"] == [1, 2]
    assert full["against"] is None and full["sparsity"] == 0
    best = by_name["ar", "mask_tuning", 0.5]
    assert best["sparsity"] == 0.5, "as measured on the saved mask"
    # Of 40 characters: 7 and 6 wrong in full, 3 and 2 under the mask.
    assert full["test"]["rate"] == pytest.approx(6.5 / 40)
    assert best["test"]["rate"] == pytest.approx(2.5 / 40)
    difference = best["against"]
    assert difference["difference"] == pytest.approx(-4 / 40)
    assert difference["low"] < -4 / 40 < difference["high"]
    assert best["peak_memory_bytes"] == 2e8
    # Two values searched, the better one with a second seed; a second each.
    assert (best["runs"], best["training_seconds"]) == (3, 3.0)
    extra = read_result(out / "result.json")["extra"]
    # 18 s of training.
    assert (extra["runs"], extra["training_hours"]) == (18, 0.01)

    printed = capsys.readouterr().out
    assert "18 runs, 0.0 h of training" in printed
    assert "12 of 18 runs" in printed or "18 of 18 runs" in printed
    for text in ("mask_tuning", "min left", "50%", "lr_scores=0.02"):
        assert text in printed
    table = list(csv.DictReader((out / "table.csv").open()))
    assert len(table) == 6
    assert table[0]["points against full [95% CI]"] == "-"
    rate = ErrorRate.from_dict(best["test"])
    assert str(rate) in (out / "table.md").read_text()
    shown = comparison_rows([read_result(out / "result.json")])
    for column in ("where", "method", "test", "trained", "seeds"):
        title = COMPARISON_COLUMNS[column]
        assert [r[column] for r in shown] == [r[title] for r in table]
    # A summary has a line a method and a column a language.
    summary = printed.split("points against full [95% CI])")[1].splitlines()
    assert summary[1].split() == [
        "method", "sparsity", "zh-CN", "ar", "subnetwork",
    ]  # fmt: skip
    assert summary[5].startswith("mask_tuning  50%       6.2 (-10.0 [")
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (out / "plot.svg").read_text()
