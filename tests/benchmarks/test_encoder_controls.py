"""The controls of mask tuning as their user runs them, on tones."""

import pytest
from benchmark_commands import run_benchmark

from s3router.evaluation.results import read_result

CONTROLS = "encoder_controls.py"


@pytest.mark.slow
def test_each_control_stands_beside_the_base(small_encoder, tones, tmp_path):
    output = tmp_path / "controls.json"
    done = run_benchmark(
        CONTROLS,
        small_encoder,
        "--quick",
        "--jobs=1",
        "--seeds=2",
        "--minutes=0.2",
        "--tasks=ar_commands",
        "--rates",
        "1e-2",
        "2e-2",
        f"--work={tmp_path / 'work'}",
        f"--output={output}",
        "--controls",
        "10%",
        "scores > 0, from 0%",
        "feed-forward",
        "random, fixed",
        shared=tones,
    )
    assert done.returncode == 0, done.stderr
    rows = {
        row["control"]: row for row in read_result(output)["metrics"]["rows"]
    }
    assert list(rows) == [
        "50%",
        "10%",
        "scores > 0, from 0%",
        "feed-forward",
        "random, fixed",
    ]
    removed = {name: row["removed"] for name, row in rows.items()}
    assert removed["50%"] == removed["feed-forward"] == 0.5
    assert removed["10%"] == pytest.approx(0.1, abs=1e-3)
    assert removed["random, fixed"] == 0.5
    assert 0 < removed["scores > 0, from 0%"] < 0.5
    assert rows["random, fixed"]["rate"] == 0
    for name, row in rows.items():
        assert len(row["dev_by_rate"]) == (1 if name == "random, fixed" else 2)
        if name == "50%":
            assert "against_base" not in row
            continue
        against = row["against_base"]
        mean = row["test"]["rate"] - rows["50%"]["test"]["rate"]
        assert against["difference"] == pytest.approx(mean)
        assert against["low"] <= against["difference"] <= against["high"]
    assert "against 50%" in done.stdout


def test_an_unknown_control_is_refused_in_one_line(tones):
    done = run_benchmark(CONTROLS, "tiny", "--controls", "11%", shared=tones)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "11%" in line and "10%" in line
