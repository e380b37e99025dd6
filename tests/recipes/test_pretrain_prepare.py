"""The pool: from folders, from manifests, and made up."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s3router.data import synthetic_pool
from s3router.data.manifest import read_manifest
from s3router.data.synthetic_pool import make_synthetic_pool
from s3router.errors import (
    DataError,
    MissingDependencyError,
    NotFoundError,
    SettingError,
)
from s3router.formats.files import read_json

FILE = Path(__file__).resolve().parents[2] / "recipes/pretrain/prepare.py"


@pytest.fixture(scope="module")
def prepare_pool():
    spec = importlib.util.spec_from_file_location("pretrain_prepare", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.prepare_pool


@pytest.fixture
def folder(tmp_path):
    """Clips of 0.5, 1 and 2 s: one at the top, two of a language."""
    root = tmp_path / "data"
    (root / "fo" / "eva").mkdir(parents=True)
    noise = 0.1 * np.random.default_rng(0).standard_normal(32000)
    soundfile.write(root / "a.wav", noise[:8000], 16000)
    soundfile.write(root / "fo" / "eva" / "b.flac", noise[:16000], 16000)
    soundfile.write(root / "fo" / "eva" / "c.ogg", noise, 16000)
    (root / "fo" / "notes.txt").write_text("no audio")
    return root


def test_any_folder_of_audio_will_do(prepare_pool, folder, tmp_path):
    prepare_pool(folder, tmp_path / "out")
    rows = {
        Path(r["wav"]).name: r for r in read_manifest(tmp_path / "out/pool.csv")
    }
    assert set(rows) == {"a.wav", "b.flac", "c.ogg"}
    assert rows["a.wav"]["language"] == "unknown"
    assert rows["b.flac"]["language"] == "fo"
    assert rows["b.flac"]["spk_id"] == rows["c.ogg"]["spk_id"]
    assert rows["c.ogg"]["duration"] == pytest.approx(2.0, abs=0.01)
    record = read_json(tmp_path / "out" / "pool.json")["sources"][0]
    assert record["hours"] == pytest.approx(3.5 / 3600, rel=0.01)
    assert record["licence"] == "not stated"


def test_manifests_say_language_speaker_and_licence(
    prepare_pool, folder, tmp_path
):
    with (folder / "fo" / "train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ID", "wav", "language", "speaker"])
        writer.writerow(["x", "eva/b.flac", "fo", "eva"])
    source = {"manifest": "fo/train.csv", "licence": "CC0-1.0"}
    prepare_pool(folder, tmp_path / "out", [source])
    (row,) = read_manifest(tmp_path / "out" / "pool.csv")
    assert row["spk_id"] == "fo/train.csv/eva"
    record = read_json(tmp_path / "out" / "pool.json")["sources"][0]
    assert (record["licence"], record["clips"]) == ("CC0-1.0", 1)


def test_bounds_of_length(prepare_pool, folder, tmp_path):
    prepare_pool(folder, tmp_path / "out", min_seconds=0.6, max_seconds=1.5)
    (row,) = read_manifest(tmp_path / "out" / "pool.csv")
    assert Path(row["wav"]).name == "b.flac"
    skipped = read_json(tmp_path / "out" / "pool.json")["skipped"]
    assert {
        r: [Path(n).name for n in names] for r, names in skipped.items()
    } == {
        "too short": ["a.wav"],
        "too long": ["c.ogg"],
    }


def test_nothing_usable_is_said(prepare_pool, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no audio file found"):
        prepare_pool(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(NotFoundError, match="no such data folder"):
        prepare_pool(tmp_path / "nowhere", tmp_path / "out")
    source = {"manifest": "a.csv", "licence": "MIT"}
    with pytest.raises(NotFoundError, match="no such manifest"):
        prepare_pool(tmp_path, tmp_path / "out", [source])
    (tmp_path / "a.csv").write_text("ID,path\n1,a.wav\n")
    with pytest.raises(DataError, match="lacks the column wav"):
        prepare_pool(tmp_path, tmp_path / "out", [source])


def test_a_second_call_changes_nothing(prepare_pool, folder, tmp_path, caplog):
    prepare_pool(folder, tmp_path / "out")
    before = (tmp_path / "out" / "pool.csv").read_bytes()
    (folder / "a.wav").unlink()
    prepare_pool(folder, tmp_path / "out")
    assert (tmp_path / "out" / "pool.csv").read_bytes() == before
    assert not caplog.text
    (tmp_path / "other").mkdir()
    prepare_pool(tmp_path / "other", tmp_path / "out")
    assert (tmp_path / "out" / "pool.csv").read_bytes() == before
    assert "pool of an earlier run is used" in caplog.text


def test_sources_need_manifest_and_licence(prepare_pool, folder, tmp_path):
    with pytest.raises(SettingError, match="manifest and licence"):
        prepare_pool(folder, tmp_path / "out", [{"manifest": "a.csv"}])
    with pytest.raises(SettingError, match="nothing to hear"):
        prepare_pool(None, tmp_path / "out")


def test_synthetic_pool_has_its_hours_and_repeats(tmp_path):
    pytest.importorskip("espeakng_loader")
    pytest.importorskip("babel")
    made = [
        make_synthetic_pool(tmp_path / name, ["es", "zh"], 12 / 3600, seed=1)
        for name in ("a", "b")
    ]
    for language in ("es", "zh"):
        seconds = [r["duration"] for r in made[0] if r["language"] == language]
        assert sum(seconds) >= 6 > sum(seconds[:-1])
    for first, second in zip(*made, strict=True):
        assert first["ID"] == second["ID"]
        assert (
            Path(first["wav"]).read_bytes() == Path(second["wav"]).read_bytes()
        )


def test_what_synthetic_speech_needs_is_said(tmp_path, monkeypatch):
    with pytest.raises(SettingError, match="synthetic_languages"):
        make_synthetic_pool(tmp_path, [], 1.0, seed=0)
    monkeypatch.setitem(__import__("sys").modules, "babel", None)
    with pytest.raises(MissingDependencyError, match="Babel"):
        synthetic_pool.make_synthetic_pool(tmp_path, ["es"], 0.1, seed=0)
