"""Runs the benchmarks' scripts as their user does."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_benchmark(
    script: str, *arguments: object, shared: Path | None = None
) -> subprocess.CompletedProcess:
    """Run a script of `benchmarks/` on the packs under `shared`."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    if shared is not None:
        environment["S3ROUTER_SHARED"] = str(shared)
    return subprocess.run(
        [
            sys.executable,
            str(ROOT / "benchmarks" / script),
            *map(str, arguments),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
