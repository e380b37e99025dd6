"""The benchmark of packed masks: it runs, and its numbers are those stated."""

import json

import pytest
from benchmark_commands import run_benchmark


@pytest.mark.slow
def test_transport(tmp_path):
    output = tmp_path / "transport.json"
    options = ["--sparsity", 0.1, "--languages", 1, 2, "--output", output]
    done = run_benchmark("transport.py", *options)
    assert done.returncode == 0, done.stderr
    result = json.loads(output.read_text())
    alone, both, near = result["masks"].values()
    # 12 layers of 4 x 768 x 768 and 2 x 768 x 3072; H(0.1) = 0.469 bits.
    weights = 12 * (4 * 768**2 + 2 * 768 * 3072)
    assert alone["bits"] == weights / 8
    assert alone["bound"] == pytest.approx(0.469 * weights / 8, rel=1e-3)
    assert 1 < alone["of_bound"] < 1.03
    assert result["bar"]["reached"] is True
    # Of the second one, only the twentieth part that it does not share.
    assert 0.5 < both["of_bound"] < 0.65
    assert near["of_bound"] < 0.3
    assert "10%, 2 language(s)" in done.stdout
