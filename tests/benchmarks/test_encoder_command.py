"""The encoder benchmark as its user runs it, on tones."""

import subprocess
from pathlib import Path

import jiwer
import pytest
from benchmark_commands import run_benchmark

from s3router.evaluation.results import read_result
from s3router.formats.files import read_json

ROOT = Path(__file__).resolve().parents[2]
METHODS = ["mask_tuning", "full", "lora", "head_only"]
PROBES = "phones keywords speakers languages words sentences".split()


def run(*arguments, shared: Path) -> subprocess.CompletedProcess:
    return run_benchmark("encoder.py", *arguments, shared=shared)


@pytest.fixture(scope="module")
def command(small_encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    return [
        small_encoder,
        "--quick",
        "--jobs=1",
        "--seeds=2",
        "--minutes=0.2",
        "--tasks=ar_commands",
        f"--work={folder / 'work'}",
        f"--output={folder / 'result.json'}",
    ], folder


@pytest.fixture(scope="module")
def finished(command, tones):
    arguments, folder = command
    done = run(*arguments, shared=tones)
    assert done.returncode == 0, done.stderr
    return done, folder


def test_the_result_is_complete(finished):
    done, folder = finished
    result = read_result(folder / "result.json")
    assert result["extra"]["encoder"]["layers"] == 2
    assert result["extra"]["encoder"]["frame_milliseconds"] == 20.0
    metrics = result["metrics"]
    assert [row["method"] for row in metrics["tuning"]] == METHODS
    for row in metrics["tuning"]:
        assert len(row["dev_by_rate"]) == 2
        assert f"{row['rate']:g}" in row["dev_by_rate"]
        assert row["dev_by_rate"][f"{row['rate']:g}"] == min(
            row["dev_by_rate"].values()
        )
        assert sorted(row["by_seed"]) == ["0", "1"]
        assert row["test"]["low"] <= row["test"]["rate"] <= row["test"]["high"]
        assert row["test"]["utterances"] == 24
    rows = {row["method"]: row for row in metrics["tuning"]}
    # 2 layers of 4 x 32 x 32 and 2 x 32 x 64 weights, 1 bit each.
    assert rows["mask_tuning"]["stored_bytes"] == 2 * (4096 + 4096) / 8
    assert rows["mask_tuning"]["removed"] == 0.5
    assert rows["lora"]["stored_bytes"] >= rows["mask_tuning"]["stored_bytes"]
    assert rows["head_only"]["stored_bytes"] == 0
    assert rows["head_only"]["trained"] < rows["lora"]["trained"]
    assert {pair["pair"] for pair in metrics["comparisons"]} == {
        f"mask_tuning - {other}" for other in METHODS[1:]
    }
    assert (folder / "result.png").read_bytes().startswith(b"\x89PNG")
    for text in ("mask_tuning - lora", "about", "min left", "last layer"):
        assert text in done.stdout


def test_every_probe_has_an_interval(finished):
    probes = read_result(finished[1] / "result.json")["metrics"]["probes"]
    assert [probe["probe"] for probe in probes] == PROBES
    for probe in probes:
        assert len(probe["dev_by_layer"]) == 3
        for name in ("last", "best"):
            test = probe[name]["test"]
            assert test["low"] <= test["rate"] <= test["high"]
        assert probe["last"]["layer"] == 2
    # Tones of three pitches are told apart by any encoder; two packs of the
    # same tones, and words of letters in no order, are not.
    accuracy = {
        p["probe"]: p["best"]["test"]["rate"]
        for p in probes
        if p["measure"] == "accuracy"
    }
    assert accuracy["keywords"] > 0.8


def trials(folder: Path) -> dict[Path, dict]:
    found = (folder / "work" / "trials").rglob("ar_commands-*.json")
    return {path: read_json(path) for path in found}


def test_test_is_scored_at_the_chosen_rate_alone(finished):
    kept = trials(finished[1]).values()
    assert len(kept) == len(METHODS) * (2 + 1)
    assert not any("rate" in result["test"] for result in kept)
    rows = read_result(finished[1] / "result.json")["metrics"]["tuning"]
    for row in rows:
        for seed, scores in row["by_seed"].items():
            (texts,) = (
                result["test"]
                for result in kept
                if result["trial"]["method"] == row["method"]
                and result["trial"]["rate"] == row["rate"]
                and result["trial"]["seed"] == int(seed)
            )
            scored = jiwer.cer(texts["references"], texts["hypotheses"])
            assert scores["test"] == pytest.approx(scored)


def test_methods_start_from_one_head(finished):
    heads = list((finished[1] / "work" / "heads").iterdir())
    assert len(heads) == 2, "one for each seed"


def test_a_second_run_computes_nothing_but_what_is_missing(
    finished, command, tones
):
    arguments, folder = command
    before = {path: path.stat().st_mtime_ns for path in trials(folder)}
    lost = next(p for p in before if "-full-1-" in p.name)
    old = read_json(lost)
    lost.unlink()
    result = read_result(folder / "result.json")["metrics"]

    done = run(*arguments, shared=tones)
    assert done.returncode == 0, done.stderr
    after = {path: path.stat().st_mtime_ns for path in trials(folder)}
    assert set(after) == set(before)
    assert [p for p in after if after[p] != before[p]] == [lost]
    new = read_json(lost)
    for key in ("dev", "test", "loss"):
        assert new[key] == old[key], "a repeated trial differs"
    again = read_result(folder / "result.json")["metrics"]
    assert again["comparisons"] == result["comparisons"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["no-such-encoder"], "no-such-encoder"),
        (["--tasks", "ar_comands"], "did you mean 'ar_commands'"),
        (["--methods", "masks"], "unknown method 'masks'"),
        (["--probes", "words", "tone"], "unknown probe 'tone'"),
        (["--rates", "full=1e-3"], "the same number of --rates"),
        (["--rates", "full=fast"], "expected as in"),
        (["--minutes", "0"], "above 0"),
        (["--seeds", "0"], "1 or more"),
        (["tiny", "tiny2", "--output", "x.json"], "leave it out"),
        (["tiny", "tiny"], "named twice"),
    ],
)
def test_what_cannot_work_is_one_line(
    arguments, line, tones, tmp_path, monkeypatch, capsys
):
    import encoder

    monkeypatch.setenv("S3ROUTER_SHARED", str(tones))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        encoder.main(arguments)
    assert stopped.value.code == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert line in error


def test_a_pack_that_is_missing_is_named(
    small_encoder, tones, tmp_path, monkeypatch, capsys
):
    import encoder

    (tmp_path / "data").mkdir()
    for pack in ("ar_commands", "zh_dsp20"):
        (tmp_path / "data" / pack).symlink_to(tones / "data" / pack)
    monkeypatch.setenv("S3ROUTER_SHARED", str(tmp_path))
    options = ["--tasks", "is_samromur", "--quick", "--jobs=1"]
    with pytest.raises(SystemExit):
        encoder.main([str(small_encoder), *options, f"--work={tmp_path}"])
    assert "is_samromur/train.csv; leave out" in capsys.readouterr().err


def test_missing_data_is_one_line(small_encoder, tmp_path):
    done = run(small_encoder, f"--work={tmp_path}", shared=tmp_path / "none")
    assert done.returncode == 2
    (error,) = done.stderr.splitlines()
    assert "set S3ROUTER_SHARED to the folder" in error


@pytest.mark.slow
def test_two_processes_find_what_one_finds(finished, command, tones, tmp_path):
    arguments, folder = command
    kept = ("--work", "--output", "--jobs")
    others = [a for a in arguments if not str(a).startswith(kept)]
    done = run(
        *others,
        "--jobs=2",
        f"--work={tmp_path / 'work'}",
        f"--output={tmp_path / 'result.json'}",
        shared=tones,
    )
    assert done.returncode == 0, done.stderr
    alone, both = (
        read_result(path / "result.json")["metrics"]
        for path in (folder, tmp_path)
    )
    assert alone["comparisons"] == both["comparisons"]
    for one, other in zip(alone["tuning"], both["tuning"], strict=True):
        assert one["test"] == other["test"]
        assert one["dev_by_rate"] == other["dev_by_rate"]
