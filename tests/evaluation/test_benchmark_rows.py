"""Results of benchmarks as rows: what is shown, and of which encoder."""

from s3router.evaluation.benchmark_rows import (
    CONTROL_COLUMNS,
    PROBE_COLUMNS,
    STUDY_COLUMNS,
    control_rows,
    probe_rows,
    study_rows,
)

TEST = {
    "rate": 0.4,
    "low": 0.35,
    "high": 0.45,
    "errors": 4,
    "total": 10,
    "utterances": 3,
    "unit": "char",
}


def test_a_point_of_the_study_is_a_row():
    point = {
        "name": "runs/p/w192/encoder",
        "parameters": 8_480_000,
        "hours": 48.4,
        "teraflop": 221.6,
        "task": "zh_dsp20",
        "minutes": 2.0,
        "method": "full",
        "measure": "CER",
        "test": TEST,
    }
    results = [{"metrics": {"rows": [point]}, "command": "python study.py"}]
    (row,) = study_rows(results)
    assert [row[key] for key in STUDY_COLUMNS] == [
        *("zh_dsp20", "2", "full", "8.5 M", "runs/p/w192", "48", "222"),
        *("40.0 [35.0, 45.0]", "CER"),
    ]
    assert row["command"] == "python study.py"


def test_a_control_stands_beside_the_base():
    base = {
        "task": "zh_dsp20",
        "minutes": None,
        "control": "50%",
        "rate": 0.012,
        "removed": 0.5,
        "dev": 0.392,
        "test": TEST,
        "measure": "CER",
        "by_seed": {"0": {}, "1": {}},
    }
    against = {"difference": 0.05, "low": 0.01, "high": 0.09}
    other = {**base, "control": "10%", "against_base": against}
    results = [{"metrics": {"rows": [base, other]}, "command": "c"}]
    first, second = control_rows(results)
    assert [first[key] for key in CONTROL_COLUMNS] == [
        *("zh_dsp20", "all", "50%", "0.012", "50%", "39.2"),
        *("40.0 [35.0, 45.0]", "CER", None, 2),
    ]
    assert second["points"] == "+5.0 [+1.0, +9.0]"


def test_a_probe_shows_the_last_layer_and_the_best():
    test = {"rate": 0.81, "low": 0.78, "high": 0.84}
    probe = {
        "probe": "keywords",
        "about": "commands",
        "measure": "accuracy",
        "dev_by_layer": [0.5, 0.825],
        "last": {"layer": 1, "test": TEST},
        "best": {"layer": 0, "test": test},
    }
    results = [{"metrics": {"probes": [probe]}, "command": "c"}]
    (row,) = probe_rows(results)
    assert [row[key] for key in PROBE_COLUMNS] == [
        *("keywords", "commands", "accuracy", "40.0 [35.0, 45.0]"),
        *("81.0 [78.0, 84.0]", 0, "50 82"),
    ]
    assert row["command"] == "c"
