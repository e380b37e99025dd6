"""`export/benchmark.py`, run as its user does."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from subnetworks import make_subnetwork

from s3router.export.bundle import make_bundle
from s3router.runtime.providers import count_cuda_devices

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("--rounds", 1, "--repeats", 2)
NO_TORCH = "raise ImportError('torch is not installed')\n"


def run(*arguments: object, path: Path = ROOT) -> subprocess.CompletedProcess:
    """Run the command; `path` may shadow installed packages."""
    return subprocess.run(
        [sys.executable, "export/benchmark.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"},
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory, encoder_folder) -> Path:
    """Return a bundle of two masked languages."""
    root = tmp_path_factory.mktemp("shared")
    paths = [
        make_subnetwork(root / code, encoder_folder, code, 0.4, seed=seed)
        for seed, code in enumerate(["zh-CN", "es"])
    ]
    make_bundle(paths, root / "bundle")
    return root / "bundle"


@pytest.fixture(scope="module")
def measured(shared) -> tuple[dict, str]:
    """Return the JSON and the text of a run with everything in it."""
    path = shared.parent / "report.json"
    done = run(
        *(shared, "--seconds", 0.3, 0.6, "--threads", 1, 2, *SHORT),
        *("--modes", "fold", "lean", "nonesuch", "--json", path),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text()), done.stdout


def table(text: str, first: str) -> list[list[str]]:
    """Return the cells of the table whose first column has a name."""
    blocks = [block.splitlines() for block in text.split("\n\n")]
    (lines,) = [b for b in blocks if b[0].split()[0] == first and len(b) > 2]
    return [re.split(r" {2,}", line.strip()) for line in lines]


def close(ratio: float, one: float, other: float) -> bool:
    return abs(ratio - one / other) < 1e-9


@pytest.mark.slow
def test_sizes_are_those_of_the_files(measured, shared):
    report, text = measured
    sizes = {p.name: p.stat().st_size for p in shared.iterdir()}
    del sizes["manifest.json"]
    assert report["bundle"]["bytes"] == sum(sizes.values())
    own = sizes["es.onnx"] + sizes["es.tokens.txt"]
    assert report["bundle"]["languages"]["es"] == own
    assert f"{own / 1000:.1f} kB" in text
    assert report["dense"]["bytes"] > sizes["backbone.bin"]


@pytest.mark.slow
def test_ratios_come_from_the_numbers_beside_them(measured):
    report, _ = measured
    checked = 0
    for row in report["rows"]:
        if row["mode"] == "nonesuch":
            continue
        assert close(
            row["load_of_dense"],
            min(row["load"]["cpu"]["all"]),
            min(row["dense"]["load"]["cpu"]["all"]),
        )
        if row["opened"] is not None:
            loaded, before = row["loaded"]["private"], row["before"]["private"]
            assert row["opened"] == loaded - before
            other = row["dense"]["opened"]
            assert close(row["opened_of_dense"], row["opened"], other)
        for name, clock in (("1 thread", "cpu"), ("2 threads", "wall")):
            for told in row["devices"][name]["clips"].values():
                fastest = min(told[clock]["all"])
                assert len(told[clock]["all"]) == 2
                assert close(
                    told["of_dense"], fastest, min(told["dense"][clock]["all"])
                )
                assert close(told["real_time_factor"], fastest, told["seconds"])
                checked += 1
    assert checked == 2 * 2 * 2 * 2


@pytest.mark.slow
def test_the_tables_show_the_json(measured):
    report, text = measured
    head, _, *lines = table(text.split("Real-time")[1], "language")
    assert head[:7] == [
        *("language", "mode", "audio", "1 thread", "of dense"),
        *("2 threads", "of dense"),
    ]
    shown = {tuple(line[:3]): line[3:7] for line in lines}
    for row in report["rows"]:
        for clip in ("0.3 s", "0.6 s") * (row["mode"] != "nonesuch"):
            expected = []
            for name in ("1 thread", "2 threads"):
                told = row["devices"][name]["clips"][clip]
                expected.append(f"{told['real_time_factor']:.3g}")
                expected.append(f"{told['of_dense']:.3g}")
            assert shown[row["language"], row["mode"], clip] == expected
    assert ("dense", "fold", "0.3 s") in shown
    head, _, *lines = table(text.split("Change")[1], "mode")
    for line, row in zip(lines, report["modes"], strict=True):
        assert line[0] == row["mode"]
        if row["why_not"] is None:
            assert line[1] == f"{1e3 * row['switch']['cpu']['minimum']:.1f}"


@pytest.mark.slow
def test_memory_is_plausible(measured):
    report, _ = measured
    for row in report["rows"]:
        if row["mode"] == "nonesuch" or row["opened"] is None:
            continue
        # A session of a tiny model beside Python and onnxruntime.
        assert 1e5 < row["opened"] < 3e7
        assert 1e7 < row["before"]["private"] < row["loaded"]["private"]
        assert row["loaded"]["private"] < row["run"]["peak"] < 4e8


@pytest.mark.slow
def test_what_is_not_there_gives_a_reason(measured):
    report, text = measured
    bad = [row for row in report["rows"] if row["mode"] == "nonesuch"]
    assert len(bad) == 2
    assert all("unknown mode 'nonesuch'" in row["why_not"] for row in bad)
    assert text.count("unknown mode 'nonesuch'") == 1
    if not count_cuda_devices():
        assert "- CUDA: the provider" in text and "- TensorRT: " in text
        for row in report["rows"]:
            assert "not usable" in row["devices"]["CUDA"]["why_not"]


@pytest.mark.slow
def test_it_measures_without_torch(shared, tmp_path):
    for name in ("torch", "transformers", "onnx"):
        (tmp_path / f"{name}.py").write_text(NO_TORCH)
    audio = tmp_path / "a.wav"
    soundfile.write(audio, np.zeros(24000), 48000)
    arguments = ("--audio", audio, "--modes", "fold", "--threads", 1, *SHORT)
    done = run(shared, *arguments, "--languages", "zh", path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "- dense: the dense export needs" in done.stdout
    (_, _, line) = table(done.stdout.split("Real-time")[1], "language")
    assert line[:3] == ["zh-CN", "fold", "a.wav"] and float(line[3]) > 0
    assert "of dense" not in done.stdout.split("Real-time")[1]
    done = run(shared, *arguments, "--encoder", "tiny", path=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("benchmark: error: the dense export needs")


@pytest.mark.slow
def test_files_of_one_name_are_both_run(shared, tmp_path):
    seconds = {"one/a.wav": 0.5, "two/a.wav": 1.0, "two/b.wav": 1.5}
    for name, length in seconds.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.zeros(round(16000 * length)), 16000)
    paths = [tmp_path / name for name in seconds]
    done = run(
        *(shared, "--audio", *paths, "--languages", "zh", "--modes", "fold"),
        *("--threads", 1, "--rounds", 1, "--repeats", 1, "--no-dense"),
        *("--json", tmp_path / "r.json"),
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "r.json").read_text())["rows"]
    clips = row["devices"]["1 thread"]["clips"]
    assert {name: told["seconds"] for name, told in clips.items()} == {
        str(paths[0]): 0.5,
        str(paths[1]): 1.0,
        "b.wav": 1.5,
    }


@pytest.mark.slow
def test_one_standalone_language(exported, subnetwork_folders, tmp_path):
    make_bundle(subnetwork_folders[:1], tmp_path / "b", layout="standalone")
    done = run(
        *(tmp_path / "b", "--seconds", 0.3, "--threads", 1, "--no-dense"),
        *("--modes", "fold", "lean", *SHORT),
    )
    assert done.returncode == 0, done.stderr
    assert "- lean: mode lean: the weights of this bundle lie" in done.stdout
    assert "change of language: the bundle has one language" in done.stdout


def test_a_bundle_that_is_none_gives_one_line(tmp_path):
    done = run(tmp_path / "none", "--no-dense")
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("benchmark: error: no such bundle folder")


def test_a_damaged_file_gives_one_line(shared, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(shared, folder)
    (folder / "backbone.bin").unlink()
    done = run(folder, "--no-dense", *SHORT)
    assert done.returncode == 2 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert "lacks a file" in line
