"""Rows of comparisons as they are shown: places, summaries."""

import pytest

from s3router.evaluation.comparison_rows import (
    comparison_rows,
    places,
    summary_columns,
    summary_rows,
)


def row(method, language, rate, against=None, sparsity=0.5, **own) -> dict:
    if against is not None:
        against = {
            "difference": against,
            "low": against - 0.01,
            "high": against + 0.01,
        }
    test = {
        "rate": rate,
        "low": rate - 0.1,
        "high": rate + 0.1,
        "errors": 1,
        "total": 10,
        "utterances": 5,
        "unit": "char",
        "substitutions": 1,
        "deletions": 0,
        "insertions": 0,
    }
    return {
        "method": method,
        "shared": {"language": language},
        "own": own,
        "chosen": {"lr": 0.1},
        "values": {"lr": [0.1, 0.2]},
        "seeds": [1, 2],
        "dev": rate,
        "test": test,
        "against": against,
        "sparsity": sparsity,
        "adapter_bytes": None,
        "trained": 7,
        "bytes": 1000.0,
        "seconds_per_batch": 0.25,
        "peak_memory_bytes": 2e8,
    }


def result(*rows) -> dict:
    return {"command": "s3router compare x.yaml", "metrics": {"rows": rows}}


@pytest.fixture
def results() -> list[dict]:
    words = result(
        row("full", "zh", 0.2, sparsity=0.0),
        row("free", "zh", 0.21, 0.01, sparsity=0.37),
        row("mask", "zh", 0.3, 0.1, sparsity=0.5),
        row("full", "ar", 0.4, sparsity=0.0),
        row("free", "ar", 0.35, -0.05, sparsity=0.41),
        row("mask", "ar", 0.36, -0.04, sparsity=0.5),
    )
    return [words, result(row("full", "ml", 0.7, sparsity=0.0))]


def test_a_summary_has_a_line_a_method_over_all_results(results):
    full, free, mask = summary_rows(results)
    assert full == {
        "method": "full",
        "sparsity": "0%",
        "bytes": "1.0 kB",
        "zh": "20.0",
        "ar": "40.0",
        "ml": "70.0",
    }
    assert free["sparsity"] == "37% to 41%"
    assert mask["sparsity"] == "50%"
    assert mask["zh"] == "30.0 (+10.0 [+9.0, +11.0])"
    assert mask["ar"] == "36.0 (-4.0 [-5.0, -3.0])"
    assert "ml" not in mask
    titles = summary_columns([full, free, mask])
    assert list(titles) == ["method", "sparsity", "zh", "ar", "ml", "bytes"]


def test_settings_of_its_own_make_lines_of_a_summary(results):
    rows = [row("mask", "zh", 0.1 * n, sparsity=s, sparse=s) for n, s in
            ((1, 0.2), (2, 0.5))]  # fmt: skip
    low, high = summary_rows([result(*rows)])
    assert low["method"] == "mask sparse=0.2" and low["zh"] == "10.0"
    assert high["method"] == "mask sparse=0.5" and high["zh"] == "20.0"


def test_rows_of_a_comparison_name_their_place_and_command(results):
    rows = comparison_rows(results)
    assert [r["where"] for r in rows] == ["zh"] * 3 + ["ar"] * 3 + ["ml"]
    assert {r["command"] for r in rows} == {"s3router compare x.yaml"}


def test_places_tell_no_more_than_they_must():
    def of(*shared):
        return places([{"shared": one} for one in shared])

    assert of({}, {}) == ["all", "all"]
    assert of({"language": "ar"}) == ["ar"]
    minutes = [
        {"language": "ar", "minutes": 2, "epochs": 60},
        {"language": "ar", "minutes": 10, "epochs": 12},
    ]
    assert of(*minutes) == ["ar, minutes=2", "ar, minutes=10"]
    # Epochs tell more where minutes are the same.
    more = [*minutes, {"language": "ar", "minutes": 10, "epochs": 9}]
    assert of(*more)[1:] == [
        "ar, minutes=10, epochs=12",
        "ar, minutes=10, epochs=9",
    ]
