"""Which runs are missing, what each starts from, and what a failure costs."""

import shlex
import shutil
import subprocess
from pathlib import Path

from comparison_command import order, run

from s3router.brains.hparams import known_settings
from s3router.comparison.runs import _stated
from s3router.evaluation.results import read_result


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
    comparison, tmp_path, capsys
):
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


def test_other_stages_are_other_settings(comparison, tmp_path, capsys):
    shutil.copytree("hparams", tmp_path / "hparams")
    staged = tmp_path / "hparams" / "zh_finetune_prune.yaml"
    text = staged.read_text()
    comparison.write_text(
        comparison.read_text().replace("hparams/zh_sparse.yaml", str(staged))
    )
    assert run(comparison) == 0
    assert run(comparison) == 0
    shorter = text.replace("name: tuned", "name: tuned, of_epochs: 0.5")
    staged.write_text(shorter)
    known_settings.cache_clear()
    _stated.cache_clear()
    capsys.readouterr()
    assert run(comparison) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "was made with stages" in error
