"""The YAML of a comparison: groups, settings, and what is refused."""

import shlex

import pytest
from comparison_command import run

from s3router.comparison.checks import check_data
from s3router.comparison.spec import read_comparison
from s3router.errors import NotFoundError


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
        ("{language: [ar]}", "[language]", "each is ['language'], but must"),
        ("{language: [ar]}", "{language: [ar, ar]}", "'ar' is there twice"),
        ("{encoder: tiny,", "[tiny] #", "common is ['tiny'], but must"),
        ("encoder: tiny", "seed: 7", "'seed' is given to each run"),
        ("encoder: tiny", "output_folder: x", "given to each run"),
        ("seeds: [1, 2]", "seeds: []", "a list of whole numbers"),
        ("seeds: [1, 2]", "seeds: [1, 1]", "seeds: 1 is there twice"),
        ("{lr_scores: [0.02, 0.04]}", "[1, 2]", "search is [1, 2], but must"),
        ("[0.02, 0.04]", "[0.02, 0.02]", "0.02 is there twice"),
        ("[0.02, 0.04]", "0.02", "needs a list of values"),
        ("yaml: hparams/zh_full.yaml", "yaml: 3", "names no yaml"),
        ("sparsity: [0.2", "sparsity: [1.5", "1.5 is not in [0, 1)"),
        ("encoder: tiny", "refresh_every: 2", "refresh_every is 2, but"),
        ("encoder: tiny", "mask_rule: positive", "method 'full': mask_rule"),
        ("encoder: tiny", "refresh_every: 2", "common: method 'full'"),
        ("[ar]", "[ar], frozen: [false, true]", "each: method 'full': frozen"),
        ("encoder: tiny", "save_folder: x", "'save_folder' is given to each"),
        ("methods:", "together: [{seed: 3}]\nmethods:", "together: 'seed'"),
        (
            "full: {yaml",
            "full: {evaluate_test: false, yaml",
            "method 'full': '",
        ),
        (
            "full: {yaml",
            "full: {method: [full, lora], yaml",
            "block of its own",
        ),
        (
            "methods:",
            "together: [{num_workers: 0}, {num_workers: 0}]\nmethods:",
            "{'num_workers': 0} is there twice",
        ),
        (
            "sparsity: [0.2, 0.5]",
            "sparsity: {attention: 0.2, feed_forward: 2}",
            "sparsity of 'feed_forward': 2 is not in [0, 1)",
        ),
        ("sparsity: [0.2, 0.5]", "sparsity: half", "'half' is not in [0, 1)"),
        (
            "{lr_scores: [0.02, 0.04]}",
            "{sparsity: [0.2, 1.5]}",
            "1.5 is not in",
        ),
        ("baseline: full", "baseline: [full]", "baseline is ['full'], but"),
        ("recipe: ", "recipe: 3 #", "recipe is 3, but must be a text"),
        ("output_folder: ", "output_folder: 3 #", "must be a text"),
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


def test_what_only_some_methods_have_is_no_setting_of_all(comparison, capsys):
    for settings, message in (
        (["refresh_every=2"], "method 'full': refresh_every is 2"),
        (["refresh_every=2"], "--set: method 'full'"),
        (["seed=7"], "--set: 'seed' is given to each run"),
        (["output_folder=3"], "output_folder is 3, but must be a text"),
        (["sparsity={attention: 2}"], "the method 'mask_tuning' has its own"),
    ):
        assert run(comparison, "--set", *settings) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert message in error
    # What a mask would be like is passed over by who has none.
    shared = ["--set", "targets=all", "--print-commands"]
    assert run(comparison, *shared) == 0
    assert "--targets=all" in capsys.readouterr().out


def test_a_start_does_not_stand_beside_stages(comparison, capsys):
    text = comparison.read_text()
    block = (
        "    pruned: {yaml: hparams/zh_omp.yaml, start_mask: {method: full}, "
        "sparsity: 0.5, search: {lr_weights: [0.02, 0.04]}}\n"
    )
    comparison.write_text(text + block)
    assert run(comparison) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "method 'pruned': start_mask" in error
    assert "add stages: null" in error
    comparison.write_text(text + block.replace("{yaml", "{stages: null, yaml"))
    assert run(comparison, "--print-commands") == 0
    comparison.write_text(text + block.replace("full}", "[full]}"))
    assert run(comparison) == 2
    assert "must be {method: NAME}" in capsys.readouterr().err


def test_data_must_be_there_before_anything_runs(comparison, tmp_path, capsys):
    text = comparison.read_text()
    for without, message in (
        (", data_folder: " + str(tmp_path), "data_folder has no value"),
        (str(tmp_path) + "}", "there is no data_folder"),
    ):
        instead = "/nowhere}" if without.endswith("}") else ""
        assert without in text
        comparison.write_text(text.replace(without, instead))
        assert run(comparison) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert message in error and "--set data_folder=" in error
        assert not (tmp_path / "out").exists()
        # Commands may be for machines that have it.
        assert run(comparison, "--print-commands") == 0
        capsys.readouterr()


def test_comparisons_do_not_write_over_each_other(comparison, tmp_path, capsys):
    other = tmp_path / "other.yaml"
    other.write_text(comparison.read_text())
    assert run(comparison, other) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "have the same output_folder" in error
    assert not (tmp_path / "out").exists()


def test_the_second_of_shared_values_is_looked_at_too(comparison, capsys):
    text = comparison.read_text().replace("sparsity: [0.2, 0.5]", "")
    for values, message in (
        ("[0.5, 1.5]", "1.5 is not in"),
        ("[0.2, 0.5]", ""),
    ):
        comparison.write_text(
            text.replace("[ar]}", f"[ar], sparsity: {values}}}")
        )
        status = run(comparison, "--print-commands")
        said = capsys.readouterr().err
        assert (status == 2, message in said) == (bool(message), True)


def test_a_sparsity_can_be_searched_and_be_of_parts(comparison, capsys):
    text = comparison.read_text()
    parts = "[{attention: 0.2, feed_forward: 0.3}, 0.5]"
    for old, new, count in (
        ("[0.2, 0.5]", parts, 6),
        (
            "sparsity: [0.2, 0.5]\n        search: {lr_scores: [0.02, 0.04]}",
            "search: {sparsity: [0.2, 0.5]}",
            4,
        ),
    ):
        assert old in text
        comparison.write_text(text.replace(old, new))
        assert run(comparison, "--print-commands") == 0
        assert len(capsys.readouterr().out.splitlines()) == count


def test_a_comparison_is_no_list_and_no_text(comparison, capsys):
    for text in ("- 1\n- 2\n", "words\n"):
        comparison.write_text(text)
        assert run(comparison) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert "a block of names and values" in error


def test_all_comparisons_are_looked_at_before_the_first_runs(
    comparison, tmp_path, capsys
):
    text = comparison.read_text()
    other = tmp_path / "other.yaml"
    elsewhere = text.replace(str(tmp_path / "out"), str(tmp_path / "other"))
    without = elsewhere.replace(f"data_folder: {tmp_path}", "num_workers: 0")
    other.write_text(without)
    for arguments in (["--launcher=submitit"], []):
        assert run(comparison, other, *arguments) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert f"{other}: data_folder has no value" in error
        assert not (tmp_path / "out").exists()
    # Commands alone can be looked at, and say what they lack.
    assert run(other, "--print-commands") == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 6
    assert "# " in said.err and "--set data_folder=" in said.err


def test_data_may_be_elsewhere_or_at_home(comparison, tmp_path, monkeypatch):
    text = comparison.read_text()
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "cv").mkdir()
    comparison.write_text(
        text.replace(f"data_folder: {tmp_path}", "data_folder: ~/cv")
    )
    cells = read_comparison(comparison).cells
    check_data("words.yaml", cells, here=True)
    (tmp_path / "cv").rmdir()
    check_data("words.yaml", cells, here=False)
    with pytest.raises(NotFoundError, match="no data_folder ~/cv"):
        check_data("words.yaml", cells, here=True)
