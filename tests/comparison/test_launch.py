"""Runs under several launchers, and their end."""

import os
import signal
import subprocess
import sys
import time

import pytest
from comparison_command import order, run


def test_unknown_launchers_and_files(comparison, capsys):
    assert run(comparison, "--launcher=slurm") == 2
    assert "Known: local, ray, submitit" in capsys.readouterr().err
    assert run("no.yaml") == 2
    assert "no such comparison" in capsys.readouterr().err
    assert run(comparison, "--jobs=0") == 2
    assert run(comparison, "--engine", "num_gpus=1") == 2
    assert "for ray and submitit" in capsys.readouterr().err
    assert run(comparison, "--set", "seeds") == 2
    assert "expected KEY=VALUE" in capsys.readouterr().err
    assert run(comparison, "--option=--train_minutes=3") == 2
    assert "as --set train_minutes=3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how", "trial_waits", "count"),
    [
        (signal.SIGTERM, False, 2),
        (signal.SIGINT, False, 2),
        (signal.SIGTERM, True, 1),
    ],
)
def test_who_ends_it_ends_its_runs(
    how, trial_waits, count, comparison, tmp_path
):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "import os, pathlib, sys, time\n"
        f"if 'trial_' in str(sys.argv) and not {trial_waits}:\n"
        "    sys.exit(1)\n"
        f"pathlib.Path({str(tmp_path)!r}, f'{{os.getpid()}}.pid').touch()\n"
        "time.sleep(300)\n"
    )
    command = [sys.executable, "-m", "s3router.cli", "compare", comparison]
    process = subprocess.Popen(
        [*command, "--jobs=2"],
        stderr=subprocess.PIPE,
        text=True,
        # Shells let what they run in the background ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while len(pids := [int(f.stem) for f in tmp_path.glob("*.pid")]) < count:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(how)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == "s3router: interrupted\n"
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert len(list(tmp_path.glob("*.pid"))) == count
    assert not list(tmp_path.glob("out/trial_*"))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["ray", "submitit"])
def test_other_engines_run_it_too(launcher, comparison, tmp_path):
    pytest.importorskip(launcher, reason=f"{launcher} is not installed")
    assert run(comparison, f"--launcher={launcher}") == 0
    assert len(order(tmp_path)) == 12
