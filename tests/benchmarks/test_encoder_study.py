"""The study: results of several encoders over what they have heard."""

from pathlib import Path

import pytest
from benchmark_commands import run_benchmark

from s3router.evaluation.results import read_result, write_result

STUDY = "encoder_study.py"


def benchmark(
    folder: Path,
    name: str,
    hours: float | None,
    rate: float,
    minutes: tuple[float, ...] = (2.0,),
):
    """Write what `encoder.py` writes, of one task and two methods."""
    rows = [
        {
            "task": "zh_dsp20",
            "minutes": labelled,
            "measure": "CER",
            "method": method,
            "test": {
                "rate": value,
                "low": value - 0.02,
                "high": value + 0.02,
                "errors": 1,
                "total": 2,
                "utterances": 1,
                "unit": "char",
            },
        }
        for labelled in minutes
        for method, value in (("mask_tuning", rate), ("full", rate - 0.1))
    ]
    return write_result(
        folder / f"encoder_{name}.json",
        config={},
        seed=0,
        metrics={"tuning": rows},
        extra={
            "benchmark": "encoder",
            "encoder": {
                "name": name,
                "parameters": 8_500_000,
                "hours_seen": hours,
                "frame_milliseconds": 40.0,
            },
        },
    )


def test_rows_lie_in_the_order_of_what_was_heard(tmp_path):
    paths = [
        benchmark(tmp_path, "end", 76.0, 0.4),
        benchmark(tmp_path, "none", 0.0, 0.9),
        benchmark(tmp_path, "early", 8.0, 0.6),
    ]
    output = tmp_path / "study.json"
    done = run_benchmark(STUDY, *paths, "--output", output)
    assert done.returncode == 0, done.stderr
    rows = read_result(output)["metrics"]["rows"]
    assert [
        (row["method"], row["hours"], row["name"], row["test"]["rate"])
        for row in rows
    ] == [
        ("full", 0.0, "none", pytest.approx(0.8)),
        ("full", 8.0, "early", pytest.approx(0.5)),
        ("full", 76.0, "end", pytest.approx(0.3)),
        ("mask_tuning", 0.0, "none", 0.9),
        ("mask_tuning", 8.0, "early", 0.6),
        ("mask_tuning", 76.0, "end", 0.4),
    ]
    # 76 hours of 25 frames a second, 6 operations for each of 8.5 M weights
    assert rows[2]["teraflop"] == pytest.approx(76 * 3600 * 25 * 51e6 / 1e12)
    assert rows[0]["teraflop"] == 0
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "8.5 M" in done.stdout and "60.0 [58.0, 62.0]" in done.stdout


def test_only_what_all_have_is_shown(tmp_path):
    paths = [
        benchmark(tmp_path, "end", 76.0, 0.4, (2.0, 10.0)),
        benchmark(tmp_path, "early", 8.0, 0.6, (2.0,)),
    ]
    output = tmp_path / "study.json"
    done = run_benchmark(STUDY, *paths, "--output", output)
    assert done.returncode == 0, done.stderr
    rows = read_result(output)["metrics"]["rows"]
    assert [row["minutes"] for row in rows] == [2.0] * 4
    other = benchmark(tmp_path, "other", 8.0, 0.6, (10.0,))
    done = run_benchmark(STUDY, paths[1], other, "--output", output)
    assert done.returncode == 2 and "no tuning in common" in done.stderr


@pytest.mark.parametrize(
    ("made", "line"),
    [
        ("unknown", "tells how much audio it has heard"),
        ("other", "no result of benchmarks/encoder.py"),
        ("missing", "encoder_missing.json"),
    ],
)
def test_what_cannot_be_placed_is_refused_in_one_line(tmp_path, made, line):
    path = tmp_path / f"encoder_{made}.json"
    if made == "unknown":
        benchmark(tmp_path, made, None, 0.5)
    elif made == "other":
        write_result(path, config={}, seed=0, metrics={})
    done = run_benchmark(STUDY, path, "--output", tmp_path / "study.json")
    assert done.returncode == 2 and line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "study.json").exists()
