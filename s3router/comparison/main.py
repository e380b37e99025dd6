"""The command `s3router compare`."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from s3router.brains.hparams import known_settings
from s3router.comparison.checks import check_data
from s3router.comparison.collect import rows_of
from s3router.comparison.estimate import announce
from s3router.comparison.launch import Launcher, build_launcher
from s3router.comparison.report import print_table, write_report
from s3router.comparison.runs import (
    Run,
    as_text,
    count_missing,
    missing_runs,
)
from s3router.comparison.spec import Comparison, read_comparison
from s3router.errors import SettingError
from s3router.evaluation.results import read_result


def compare(
    specs: Sequence[str],
    overrides: Mapping[str, object],
    options: Sequence[str] = (),
    jobs: int = 1,
    launcher: str = "local",
    engine: Mapping[str, object] | None = None,
    print_commands: bool = False,
) -> int:
    """Run or resume what is missing of comparisons, then report.

    Arguments
    ---------
    specs : sequence of str
        YAMLs, see `spec.py`.
    overrides : mapping
        Settings of all runs.
    options : sequence of str
        Of SpeechBrain, for every run, as `--device=cpu`.
    jobs : int
        Runs at a time.
    launcher : str
        local, ray or submitit.
    engine : mapping, optional
        For ray (of its tasks, as `num_gpus`) and submitit (of its executor,
        as `gpus_per_node`).
    print_commands : bool
        Print what is missing, one command a run, and run nothing.

    Returns
    -------
    int
        How many runs failed.
    """
    failed = 0
    comparisons = {path: read_comparison(path, overrides) for path in specs}
    _check_outputs(comparisons)
    for path, comparison in comparisons.items():
        _check_options(comparison, options)
        if not print_commands and missing_runs(comparison):
            check_data(path, comparison.cells, here=launcher == "local")
    for path, comparison in comparisons.items():
        if print_commands:
            _print_commands(path, comparison, options)
            continue
        runner = None
        if missing_runs(comparison):
            runner = build_launcher(
                launcher, jobs, comparison.output, engine or {}
            )
        announce(path, comparison, jobs, options, launcher == "local")
        if runner is not None:
            failed += run_missing(comparison, runner, options)
        rows = rows_of(comparison)
        if rows:
            settings = {"specification": path, **overrides}
            written = write_report(comparison, rows, settings)
            print_table(comparison, rows)
            print(f"\nwritten: {', '.join(map(str, written))}")
        else:
            print(f"{path}: no cell has ended yet")
    return failed


def run_missing(
    comparison: Comparison,
    launcher: Launcher,
    options: Sequence[str],
) -> int:
    """Run what is missing, searches first; return how many runs failed.

    Arguments
    ---------
    comparison : Comparison
        What to run.
    launcher : Launcher
        Who runs it.
    options : sequence of str
        For every run.
    """
    failed: set[Path] = set()
    started, trained = time.perf_counter(), 0
    while runs := [
        run for run in missing_runs(comparison) if run.folder not in failed
    ]:
        only_tested = {run.folder for run in runs if run.result.is_file()}
        commands = [run.command(comparison.recipe, options) for run in runs]
        logs = [str(run.folder / "output.txt") for run in runs]
        for place, status in launcher.run(commands, logs):
            run = runs[place]
            if status or not run.is_done():
                failed.add(run.folder)
                _complain(run, logs[place], status)
                continue
            trained += run.folder not in only_tested
            left, total = count_missing(comparison)
            passed = (time.perf_counter() - started) / max(1, trained) / 60
            print(
                f"[{total - left}/{total}] {_told(run)}; "
                f"about {passed * left:.0f} min left",
                flush=True,
            )
    return len(failed)


def _check_outputs(comparisons: Mapping[str, Comparison]) -> None:
    """Refuse comparisons that would write over each other."""
    taken: dict[Path, str] = {}
    for path, comparison in comparisons.items():
        output = comparison.output.resolve()
        if output in taken:
            raise SettingError(
                f"{path} and {taken[output]} have the same output_folder "
                f"{comparison.output}; run them one by one, each with its own"
            )
        taken[output] = path


def _check_options(comparison: Comparison, options: Sequence[str]) -> None:
    """Refuse settings of the YAML: a comparison must know what it compares."""
    for option in options:
        key = option.lstrip("-").partition("=")[0]
        for yaml in {cell.yaml for cell in comparison.cells}:
            if key in known_settings(yaml):
                raise SettingError(
                    f"--option={option}: {key} is a setting of {yaml}; give "
                    f"it by --set, as --set {option.lstrip('-')}"
                )


def _print_commands(
    path: str, comparison: Comparison, options: Sequence[str]
) -> None:
    try:
        check_data(path, comparison.cells, here=False)
    except SettingError as error:
        # Commands can be looked at without data.
        print(f"# {error}", file=sys.stderr)
    runs = missing_runs(comparison)
    for run in runs:
        print(as_text(run.command(comparison.recipe, options)))
    left, _ = count_missing(comparison)
    if left > len(runs):
        print(
            f"# {left - len(runs)} more runs wait for these: the chosen "
            "setting runs with the other seeds",
            file=sys.stderr,
        )


def _told(run: Run) -> str:
    chosen = " ".join(f"{k}={v}" for k, v in run.chosen.items())
    metrics = read_result(run.result)["metrics"]
    text = (
        f"{run.cell.name} {chosen} seed {run.seed}: "
        f"dev {100 * metrics['dev_cer']:.1f}"
    )
    if run.tested:
        text += f", test {100 * metrics['test_cer']['rate']:.1f}"
    return text


def _complain(run: Run, log: str, status: int) -> None:
    file = Path(log)
    text = file.read_text("utf-8", "replace") if file.is_file() else ""
    lines = text.splitlines()
    last = next((line for line in reversed(lines) if line.strip()), "no output")
    print(
        f"s3router: {run.cell.name}, seed {run.seed} failed (exit {status}): "
        f"{last}; all of it: {log}",
        file=sys.stderr,
        flush=True,
    )
