"""Results of the benchmark of exports, and of one bundle, as tables."""

from s3router.evaluation.export_rows import (
    BAR_COLUMNS,
    EXPORT_COLUMNS,
    bar_rows,
    export_rows,
)
from s3router.evaluation.speed_tables import speed_text

CLOCKS = {
    clock: {"minimum": 2.0, "median": 3.0, "all": [2.0, 3.0, 4.0]}
    for clock in ("wall", "cpu")
}
MEMORY = {"private": 50_000_000, "peak": 90_000_000}
LOADED = {
    "load": CLOCKS,
    "before": MEMORY,
    "loaded": MEMORY,
    "run": {"private": 70_000_000, "peak": None},
    "opened": 20_000_000,
}


def clip(of_dense: float) -> dict:
    return {
        "seconds": 5.0,
        **CLOCKS,
        "dense": CLOCKS,
        "real_time_factor": 0.4,
        "of_dense": of_dense,
    }


def row(**settings) -> dict:
    """Return a row as `measure_row` and the benchmark make it."""
    return {
        "variant": "shared",
        "masks": "all",
        "sparsity": 0.5,
        "language": "aa",
        "mode": "fold",
        "why_not": None,
        "own_bytes": 12_000_000,
        "shared_bytes": 377_000_000,
        **LOADED,
        "dense": LOADED,
        "load_of_dense": 1.5,
        "opened_of_dense": 1.04,
        "devices": {
            "1 thread": {
                "why_not": None,
                "clock": "cpu",
                "clips": {"5 s": clip(1.014), "15 s": clip(0.996)},
            },
            "CUDA": {"why_not": "no device"},
        },
        **settings,
    }


def test_a_bundle_is_a_row_below_dense():
    missing = row(variant="int8", why_not="refused", devices={})
    for key in ("own_bytes", "shared_bytes", "opened", "load_of_dense"):
        del missing[key]
    sizes = row(variant="shared_10", mode=None, devices={}, sparsity=0.1)
    sizes["transport"] = {"why_not": None, "bytes": 5_000_000}
    metrics = {"dense": {"bytes": 378e6}, "rows": [row(), sizes, missing]}
    extra = {"shape": "base"}
    results = [{"metrics": metrics, "extra": extra, "command": "c"}]
    dense, first, second, third = export_rows(results)
    assert [dense.get(key) for key in EXPORT_COLUMNS] == [
        *("base", "dense", "nothing", "fold", "378.0 MB", None, None),
        *("20.0 MB", None, None, None, None, None),
    ]
    assert [first[key] for key in EXPORT_COLUMNS] == [
        *("base", "shared", "50% of all linears", "fold", "12.0 MB", "-"),
        *("377.0 MB", "20.0 MB", "1.50", "1.01 / 1.00", None, None, None),
    ]
    assert second["removed"] == "10% of all linears"
    assert second["sent"] == "5.0 MB" and second["one"] is None
    assert third["why"] == "refused" and third["own"] == "-"
    assert {each["command"] for each in (dense, first)} == {"c"}


def test_a_bar_is_a_row():
    bar = {
        "what": "fold: run time",
        "bar": "1.030x",
        "measured": "1.005x",
        "verdict": "reached",
        "value": 1.005,
    }
    results = [
        {
            "metrics": {"bars": [bar]},
            "extra": {"shape": "base"},
            "command": "c",
        }
    ]
    (shown,) = bar_rows(results)
    assert [shown[key] for key in BAR_COLUMNS] == [
        *("base", "fold: run time", "1.030x", "1.005x", "reached")
    ]


def test_a_report_says_why_cells_are_empty():
    lean = row(mode="lean", why_not="one file", devices={})
    report = {
        "bundle": {
            "layout": "shared",
            "precision": "fp32",
            "bytes": 389_000_000,
        },
        "dense": {"bytes": 378_000_000, "why_not": None},
        "rows": [row(), lean],
        "modes": [
            {
                "mode": "fold",
                "why_not": None,
                "first": {"wall": 3.0, "cpu": 2.5},
                "switch": CLOCKS,
                "further": 18_000_000,
                "switched": None,
            },
            {"mode": "lean", "why_not": "one file"},
        ],
    }
    lines = [line.split() for line in speed_text(report).splitlines()]
    assert "dense fold 378.0 MB 2 - 20.0 MB - 70.0 MB -".split() in lines
    assert "aa fold 12.0 MB 2 1.5 20.0 MB 1.04 70.0 MB -".split() in lines
    assert "aa lean 12.0 MB - - - - - -".split() in lines
    assert "aa fold 15 s 0.4 0.996 -".split() in lines
    assert "fold 2000.0 3000.0 2500.0 18.0 MB -".split() in lines
    assert "- CUDA: no device".split() in lines
    assert "- lean, change of language: one file".split() in lines
