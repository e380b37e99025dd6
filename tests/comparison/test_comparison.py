"""Comparing methods: what runs, in which order, and what is reported."""

import csv
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from s3router.cli import main
from s3router.comparison.estimate import announce, seconds_by_trial
from s3router.comparison.spec import read_comparison
from s3router.evaluation.comparison_rows import (
    COMPARISON_COLUMNS,
    comparison_rows,
)
from s3router.evaluation.error_rates import ErrorRate
from s3router.evaluation.results import read_result


def order(folder: Path) -> list[str]:
    """Return what the recipe was asked, in order of its runs."""
    files = folder.rglob("order.txt")
    return [line for f in files for line in f.read_text().splitlines()]


def run(*arguments: object) -> int:
    return main(["compare", *map(str, arguments)])


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


def test_it_tells_how_long_it_will_take(comparison, tmp_path, capsys):
    """One epoch takes a second, as the recipe says."""
    comparison.write_text(
        comparison.read_text().replace(
            "encoder: tiny", "encoder: tiny, number_of_epochs: 1200"
        )
    )
    read = read_comparison(comparison)
    seconds = seconds_by_trial(read, 1, [])
    # 3 rows, each 2 values and a second seed, of 1200 epochs.
    assert 9 * 1200 <= seconds < 9 * 1200 + 9 * 60
    assert order(tmp_path) == []
    announce("words.yaml", read, 2, [], trial=True)
    tried, told = capsys.readouterr().out.splitlines()
    assert "one epoch of full tells how long" in tried
    assert told == (
        "words.yaml: 9 of 9 runs to do, 2 at a time; about 1.5 h by that epoch"
    )
    announce("words.yaml", read, 2, [], trial=False)
    assert "known when the first has ended" in capsys.readouterr().out
    assert not list((tmp_path / "out").iterdir())


def test_a_second_command_runs_what_is_missing_alone(
    comparison, tmp_path, capsys
):
    assert run(comparison) == 0
    before = len(order(tmp_path))
    lost = next((tmp_path / "out").rglob("2/result.json"))
    lost.unlink()
    capsys.readouterr()
    assert run(comparison, "--jobs", 2) == 0
    assert len(order(tmp_path)) == before + 1
    assert "1 of 9 runs to do" in capsys.readouterr().out
    assert run(comparison) == 0
    assert len(order(tmp_path)) == before + 1
    assert "all 9 runs are there" in capsys.readouterr().out


def test_commands_are_printed_and_lead_to_the_same(
    comparison, tmp_path, capsys, monkeypatch
):
    import subprocess

    counts = []
    for _ in range(2):
        assert run(comparison, "--print-commands") == 0
        said = capsys.readouterr()
        commands = said.out.splitlines()
        counts.append((len(commands), "wait for these" in said.err))
        for command in commands:
            subprocess.run(shlex.split(command), check=True)
    # Searches first; then the seeds of what they chose.
    assert counts == [(6, True), (6, False)]
    assert run(comparison, "--print-commands") == 0
    assert capsys.readouterr().out == ""
    assert run(comparison) == 0
    assert len(order(tmp_path)) == 12


def test_a_method_starts_from_runs_of_another(comparison, tmp_path, capsys):
    text = comparison.read_text() + (
        "    pruned:\n"
        "        yaml: hparams/zh_sparse.yaml\n"
        "        start_weights: {method: full}\n"
        "        sparsity: 0.5\n"
        "        search: {lr_scores: [0.02, 0.04]}\n"
    )
    comparison.write_text(text)
    assert run(comparison, "--print-commands") == 0
    commands = capsys.readouterr().out
    assert len(commands.splitlines()) == 6 and "start_weights" not in commands
    assert run(comparison) == 0
    out = tmp_path / "out"
    rows = read_result(out / "result.json")["metrics"]["rows"]
    assert [row["method"] for row in rows].count("pruned") == 1
    assert run(comparison) == 0, "what is there is known again"
    # From the setting of full that dev chose, and from the same seed.
    for seed in (1, 2):
        folder = out / "ar" / "pruned" / "lr_scores-0.02" / str(seed)
        (folder / "result.json").unlink()
        capsys.readouterr()
        assert run(comparison, "--print-commands") == 0
        (command,) = capsys.readouterr().out.splitlines()
        start = out / "ar" / "full" / "lr_weights-0.02" / str(seed)
        assert f"--start_weights={start}/subnetwork" in shlex.split(command)
        assert f"--seed={seed}" in shlex.split(command)
        assert run(comparison) == 0

    for start in ("{method: none}", "{method: mask_tuning}", "{run: full}"):
        comparison.write_text(text.replace("{method: full}", start))
        assert run(comparison) == 2
        assert "of one that comes before it" in capsys.readouterr().err


def test_who_waits_for_a_failed_run_does_not_run(comparison, tmp_path, capsys):
    text = comparison.read_text().replace("[0.01, 2e-2]", "[0.5, 2e-2]")
    comparison.write_text(
        text + "    pruned: {yaml: hparams/zh_sparse.yaml, sparsity: 0.5, "
        "start_mask: {method: full}, search: {lr_scores: [0.02, 0.04]}}\n"
    )
    assert run(comparison) == 1
    assert capsys.readouterr().err.count("failed (exit 1)") == 1
    assert not (tmp_path / "out" / "ar" / "pruned").exists()


def test_a_run_that_fails_is_one_line_and_others_go_on(
    comparison, tmp_path, capsys
):
    text = comparison.read_text().replace("[0.01, 2e-2]", "[0.5, 2e-2]")
    comparison.write_text(text)
    assert run(comparison) == 1
    said = capsys.readouterr()
    lines = [li for li in said.err.splitlines() if "failed (exit 1)" in li]
    assert len(lines) == 1
    assert "the loss is not finite; all of it: " in lines[0]
    assert Path(lines[0].split("all of it: ")[1]).is_file()
    rows = read_result(tmp_path / "out" / "result.json")["metrics"]["rows"]
    assert {row["method"] for row in rows} == {"mask_tuning"}
    assert all(row["against"] is None for row in rows)


def test_what_was_made_with_other_settings_is_not_reported(
    comparison, tmp_path, capsys
):
    assert run(comparison, "--set", "train_minutes=10") == 0
    before = len(order(tmp_path))
    for settings, key in (
        (["train_minutes=40"], "train_minutes 10"),
        (["train_minutes=10", "data_folder=/other"], "data_folder"),
        (["train_minutes=10", "lr_head=7.0"], "lr_head"),
    ):
        capsys.readouterr()
        assert run(comparison, "--set", *settings) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert f"was made with {key}" in error
        assert "choose another output_folder" in error
    assert len(order(tmp_path)) == before


def test_settings_that_a_method_states_are_not_overridden(comparison, capsys):
    for setting, who in (
        ("sparsity=0.9", "the method 'mask_tuning'"),
        ("lr_weights=1", "the method 'full'"),
        ("language=ar", "a list under `each`"),
    ):
        assert run(comparison, "--set", setting) == 2
        assert who in capsys.readouterr().err


def test_a_setting_that_a_method_lacks_is_refused(comparison, capsys):
    text = comparison.read_text()
    full = "full: {yaml: hparams/zh_full.yaml, "
    for setting, told in (
        ("sparsity: [0.1, 0.5], ", "sparsity is [0.1, 0.5]"),
        ("mask_rule: positive, ", "mask_rule is 'positive'"),
    ):
        comparison.write_text(text.replace(full, full + setting))
        assert run(comparison) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert f"method 'full': {told}" in error
        assert "methods with it: mask_tuning" in error
    # What asks for nothing is let through; stages may each lack something.
    comparison.write_text(
        text.replace(full, full + "start_mask: null, ").replace(
            "zh_sparse", "zh_finetune_prune"
        )
    )
    assert run(comparison, "--print-commands") == 0


def test_what_changes_together_is_one_group(comparison, capsys):
    text = comparison.read_text().replace(
        "methods:",
        """together:
    - {train_minutes: 2, number_of_epochs: 60}
    - {train_minutes: 10, number_of_epochs: 15}
methods:""",
    )
    comparison.write_text(text)
    assert run(comparison, "--print-commands") == 0
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == 2 * 6
    pairs = {
        tuple(
            word
            for word in shlex.split(line)
            if word.startswith(("--train_minutes", "--number_of_epochs"))
        )
        for line in commands
    }
    assert pairs == {
        ("--train_minutes=2", "--number_of_epochs=60"),
        ("--train_minutes=10", "--number_of_epochs=15"),
    }
    assert run(comparison, "--set", "train_minutes=5") == 2
    assert "a list under `together`" in capsys.readouterr().err
    comparison.write_text(text.replace("{train_minutes: 2, ", "{"))
    assert run(comparison) == 2
    assert "set the same settings" in capsys.readouterr().err
    comparison.write_text(text.replace("- {train_minutes: 2, ", "- 3 #{"))
    assert run(comparison) == 2
    assert "together is a list of settings" in capsys.readouterr().err
    comparison.write_text(
        text.split("together:")[0]
        + "together: 3\nmethods:"
        + text.split("methods:")[1]
    )
    assert run(comparison, "--set", "encoder=other") == 2
    assert "together is a list of settings" in capsys.readouterr().err
    comparison.write_text(
        text.replace("language: [ar]", "language: [ar], train_minutes: [2]")
    )
    assert run(comparison) == 2
    assert "train_minutes is under each and together" in capsys.readouterr().err


def test_settings_of_the_command_line_hold_in_every_run(
    comparison, tmp_path, capsys
):
    options = ["--set", "encoder=other", "--set", "seeds=[5]"]
    options.append("--option=--device=cpu")
    assert run(comparison, *options, "--print-commands") == 0
    commands = [
        shlex.split(line) for line in capsys.readouterr().out.splitlines()
    ]
    assert len(commands) == 6
    for command in commands:
        assert "--encoder=other" in command
        assert "--seed=5" in command
        assert command[-1] == "--device=cpu"
        assert "--evaluate_test=False" in command


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("baseline: full", "baseline: fll", "none of the methods"),
        ("sparsity: [0.2", "sparsty: [0.2", "did you mean 'sparsity'"),
        ("seeds: [1, 2]", "seeds: [a]", "a list of whole numbers"),
        ("seeds: [1, 2]", "seeds: 3", "a list of whole numbers"),
        ("seeds: [1, 2]", "sedes: [1]", "did you mean 'seeds'"),
        ("[0.02, 0.04]", "[0.02]", "must choose from as many values"),
        ("hparams/zh_full.yaml", "hparams/no.yaml", "no such YAML"),
        ("language: [ar]", "language: ar", "expected a list"),
        ("encoder: tiny", "encoder: !ref <x>", "plain YAML"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    comparison, capsys, old, new, message
):
    text = comparison.read_text()
    assert old in text
    comparison.write_text(text.replace(old, new))
    assert run(comparison) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error


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
