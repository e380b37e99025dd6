"""Result JSONs: written whole, read strictly, and without local paths."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from s3router.errors import FormatError, NotFoundError, SettingError
from s3router.evaluation import provenance
from s3router.evaluation.error_rates import ErrorRate, error_rate
from s3router.evaluation.results import (
    REQUIRED_KEYS,
    plain_settings,
    portable,
    read_result,
    shorten_paths,
    write_result,
)

RATE = error_rate(["a b c"] * 5, ["a b d"] * 5, "word", replicates=50)


def write(path, **changes):
    """Write a small result."""
    values = {
        "config": {"lr": 0.1, "encoder": "tiny"},
        "seed": 7,
        "metrics": {"test_wer": RATE, "nothing": None},
        "extra": {"language": "zh"},
    }
    return write_result(path, **{**values, **changes})


def test_round_trip(tmp_path):
    result = read_result(write(tmp_path / "deep" / "a.json"))
    assert set(result) == set(REQUIRED_KEYS)
    assert result["config"] == {"lr": 0.1, "encoder": "tiny"}
    assert result["seed"] == 7
    assert ErrorRate.from_dict(result["metrics"]["test_wer"]) == RATE
    assert result["metrics"]["nothing"] is None
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", result["date"])


def test_says_what_it_was_made_with(tmp_path):
    result = read_result(write(tmp_path / "a.json"))
    assert result["versions"]["python"] == sys.version.split()[0]
    assert result["versions"]["numpy"] == np.__version__
    assert result["machine"]["cores"] >= 1
    assert result["machine"]["cpu"]
    assert set(result["machine"]) == {"cpu", "cores", "gpu", "system"}
    assert result["command"].startswith(("python ", "pytest"))


def test_a_failed_write_leaves_the_old_result(tmp_path):
    path = write(tmp_path / "a.json")
    before = path.read_bytes()
    with pytest.raises(SettingError, match=r"config\.model is a object"):
        write(path, config={"model": object()})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("key", REQUIRED_KEYS)
def test_a_missing_key_is_named(tmp_path, key):
    path = write(tmp_path / "a.json")
    result = json.loads(path.read_text(encoding="utf-8"))
    del result[key]
    path.write_text(json.dumps(result), encoding="utf-8")
    with pytest.raises(FormatError, match=key):
        read_result(path)


def test_what_is_no_result_is_refused(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(NotFoundError, match="a.json"):
        read_result(path)
    path.write_text('{"format_version": 1', encoding="utf-8")
    with pytest.raises(FormatError, match="a.json"):
        read_result(path)
    path.write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(FormatError, match="no mapping"):
        read_result(path)


def test_a_later_version_is_refused(tmp_path):
    path = write(tmp_path / "a.json")
    text = path.read_text(encoding="utf-8")
    later = text.replace('"format_version": 1', '"format_version": 2')
    path.write_text(later, encoding="utf-8")
    with pytest.raises(FormatError, match="is 2, this version reads 1"):
        read_result(path)


def test_values_become_plain():
    value = {
        "numpy": np.float32(0.5),
        "count": np.int64(3),
        "tuple": (0.9, 0.98),
        "rate": RATE,
        "nan": float("nan"),
        "path": Path("a") / "b",
        1: True,
    }
    plain = portable(value, "config")
    json.dumps(plain, allow_nan=False)
    assert plain["numpy"] == 0.5 and plain["count"] == 3
    assert plain["tuple"] == [0.9, 0.98]
    assert plain["rate"]["errors"] == RATE.errors
    assert plain["nan"] is None
    assert plain["path"] == "a/b" and plain["1"] is True


def test_objects_of_a_yaml_are_left_out():
    settings = {"lr": 0.1, "model": object(), "nest": {"f": print}, "n": None}
    assert plain_settings(settings) == {"lr": 0.1, "n": None}


def test_paths_mean_the_same_elsewhere(tmp_path, monkeypatch):
    work = tmp_path / "repository"
    (work / "hparams").mkdir(parents=True)
    monkeypatch.chdir(work)
    assert shorten_paths(f"{work}/hparams/zh.yaml") == "hparams/zh.yaml"
    assert shorten_paths(f"--data={tmp_path}/data/zh") == "--data=../data/zh"
    assert shorten_paths("x /far/away/place/zh y") == "x .../zh y"
    for text in ("facebook/wav2vec2-base", "https://a.b/c", "1/2", "../x/y"):
        assert shorten_paths(text) == text


def test_no_absolute_path_in_a_result(tmp_path):
    path = write(
        tmp_path / "a.json",
        config={"data_folder": tmp_path / "cv", "deep": [str(tmp_path)]},
        command=f"python train.py --data_folder={tmp_path}/cv",
    )
    assert str(tmp_path) not in path.read_text(encoding="utf-8")
    assert read_result(path)["command"].endswith("=.../cv")


def test_command_as_typed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from s3router.evaluation.provenance import command_line\n"
        "print(command_line())\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(script), "--text=two words"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(provenance.__file__).parents[2])},
    )
    assert done.stdout == f"python {script} '--text=two words'\n"


@pytest.mark.parametrize("prefix", ["", "{folder}/"])
def test_command_of_an_installed_script(prefix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = prefix.format(folder=tmp_path) + "bin/s3router"
    python = str(tmp_path / "bin/python")
    words = [python, script, "quickstart", "--clean"]
    monkeypatch.setattr(sys, "orig_argv", words)
    assert provenance.command_line() == "s3router quickstart --clean"


def git(folder, *words):
    """Run git in a folder, with a name to commit under."""
    name = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(
        ["git", "-C", str(folder), *name, *words],
        check=True,
        capture_output=True,
    )


def test_commit_of_this_package_only(tmp_path, monkeypatch):
    module = tmp_path / "s3router" / "evaluation" / "provenance.py"
    module.parent.mkdir(parents=True)
    module.write_text("", encoding="utf-8")
    monkeypatch.setattr(provenance, "__file__", str(module))
    assert provenance.git_commit() is None
    git(tmp_path, "init", "--quiet")
    assert provenance.git_commit() is None
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    commit = provenance.git_commit()
    assert re.fullmatch(r"[0-9a-f]{40}", commit)
    module.write_text("# changed\n", encoding="utf-8")
    assert provenance.git_commit() == f"{commit}-dirty"
    # Installed below another project: its commit is not ours.
    inner = tmp_path / "lib" / "s3router" / "evaluation" / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(inner))
    inner.parent.mkdir(parents=True)
    assert provenance.git_commit() is None
