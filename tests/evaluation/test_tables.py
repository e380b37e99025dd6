"""README tables from result JSONs, through the command that users run."""

import subprocess
import sys
from pathlib import Path

import pytest

from s3router.errors import SettingError
from s3router.evaluation.error_rates import error_rate
from s3router.evaluation.results import write_result
from s3router.evaluation.tables import TABLES, fill, main, render

README = """# Title

Before.

<!-- results:commonvoice -->
old numbers
<!-- /results:commonvoice -->

After.
"""


def add_result(root, name, errors, seed=1, folder="recipes/commonvoice"):
    """Write a result of the recipe below a root."""
    hyps = ["a b x"] * errors + ["a b c"] * (10 - errors)
    scored = error_rate(["a b c"] * 10, hyps, "char", replicates=100)
    return write_result(
        root / folder / "results" / f"{name}.json",
        config={"encoder": "tiny", "data_folder": "../cv"},
        seed=seed,
        metrics={"dev_cer": 0.1, "test_cer": scored, "test_wer": scored},
        extra={
            "language": name,
            "method": "mask_tuning",
            "sparsity": 0.5,
            "labelled_minutes": 2.0,
            "trainable_parameters": 10,
            "subnetwork_bytes": 10,
        },
        command=f"python train.py {name}.yaml --seed={seed}",
    )


@pytest.fixture
def repository(tmp_path):
    """Return a folder with a README and two results."""
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    add_result(tmp_path, "zh", 5)
    add_result(tmp_path, "es", 2)
    return tmp_path


def run(root, *options):
    """Run the command on the folder's README; return its status."""
    readme = str(root / "README.md")
    return main([readme, "--root", str(root), *options])


def test_fills_between_the_marks_only(repository):
    assert run(repository) == 0
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# Title\n\nBefore.\n\n<!-- results:commonvoice")
    assert text.endswith("<!-- /results:commonvoice -->\n\nAfter.\n")
    assert "old numbers" not in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == 4
    assert lines[2].startswith("| es |") and "| 4.0 [" in lines[2]
    assert lines[3].startswith("| zh |") and "| 10.0 [" in lines[3]
    assert "python train.py zh.yaml --seed=1" in text


def test_filling_twice_changes_nothing(repository, capsys):
    run(repository)
    first = (repository / "README.md").read_bytes()
    assert "filled" in capsys.readouterr().out
    assert run(repository) == 0
    assert (repository / "README.md").read_bytes() == first
    assert capsys.readouterr().out == ""


def test_check_sees_old_numbers_and_changes_nothing(repository, capsys):
    run(repository)
    assert run(repository, "--check") == 0
    add_result(repository, "ru", 1)
    before = (repository / "README.md").read_bytes()
    assert run(repository, "--check") == 1
    assert "is not up to date" in capsys.readouterr().out
    assert (repository / "README.md").read_bytes() == before


def test_check_sees_an_edited_number(repository):
    run(repository)
    readme = repository / "README.md"
    text = readme.read_text(encoding="utf-8")
    assert "| 4.0 [" in text
    readme.write_text(text.replace("| 4.0 [", "| 3.0 ["), encoding="utf-8")
    assert run(repository, "--check") == 1


def test_the_card_of_an_encoder_lists_no_commands(repository):
    text = render("worth", repository)
    assert "| cv | 2.0 | tiny | mask_tuning | 4.0 [" in text
    assert "python train.py" not in text and "<details>" not in text
    assert "python train.py" in render("commonvoice", repository)


def test_without_results_the_table_says_so(tmp_path):
    filled = fill(README, tmp_path)
    assert "No results yet" in filled
    assert fill(filled, tmp_path) == filled


def test_unknown_and_open_tables_are_errors(repository, capsys):
    with pytest.raises(SettingError, match="did you mean 'commonvoice'"):
        render("commonvoices", repository)
    with pytest.raises(SettingError, match="results:quickstart"):
        fill("<!-- results:quickstart -->\n", repository)
    assert run(repository, "--csv", "nonsense") == 2
    assert "s3router: error: no table 'nonsense'" in capsys.readouterr().err
    assert main([str(repository / "none.md")]) == 2
    assert "none.md" in capsys.readouterr().err


def test_a_broken_result_is_named(repository, capsys):
    path = repository / "recipes/commonvoice/results/es.json"
    path.write_text("{", encoding="utf-8")
    assert run(repository) == 2
    assert "es.json" in capsys.readouterr().err
    assert "old numbers" in (repository / "README.md").read_text("utf-8")


def test_csv(repository, capsys):
    assert run(repository, "--csv", "commonvoice") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("language,data,labelled min,encoder,method")
    assert [line.split(",")[0] for line in lines[1:3]] == ["es", "zh"]


def test_quickstart_table(tmp_path):
    row = {
        "language": "zh",
        "method": "mask_tuning",
        "sparsity": 0.5,
        "cer": error_rate(["a b"] * 4, ["a b"] * 4, "char", replicates=10),
        "wer": None,
        "subnetwork_bytes": 1000,
        "onnx_bytes": 2000,
        "real_time_factor": 0.01,
        "agrees": True,
    }
    path = TABLES["quickstart"].pattern.replace("*", "quickstart")
    write_result(
        tmp_path / path,
        config={},
        seed=1,
        metrics={"rows": [row, {**row, "method": "full"}]},
        command="s3router quickstart",
    )
    text = render("quickstart", tmp_path)
    assert "| zh | mask_tuning | 50% | 0.0 [0.0, 0.0] | - | 1.0 kB |" in text
    assert text.count("s3router quickstart") == 1
    assert "Synthetic speech." in text


def test_runs_as_a_module(repository):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "s3router.evaluation.tables",
            str(repository / "README.md"),
            f"--root={repository}",
            "--check",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 1
    assert "is not up to date" in done.stdout
