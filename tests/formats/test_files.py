"""Whole or not at all: files, folders, JSON, hashes, sizes."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from s3router.errors import FormatError, NotFoundError, SettingError
from s3router.formats.files import (
    atomic_file,
    atomic_folder,
    folder_sizes,
    read_json,
    sha256_file,
    to_json,
    write_json,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def ours(folder, text="old"):
    folder.mkdir()
    (folder / "config.json").write_text('{"format_version": 1}')
    (folder / "part").write_text(text)
    return folder


def test_a_file_appears_at_the_end_only(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
    assert path.read_text() == "new" and names(path.parent) == ["a.txt"]


def test_a_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_writing_nothing_is_an_error(tmp_path):
    with pytest.raises(NotFoundError, match="nothing was written"):
        with atomic_file(tmp_path / "a.txt"):
            pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_kill_keeps_the_old(tmp_path, what):
    script = f"""
import os, sys
from s3router.formats.files import atomic_{what}
with atomic_{what}(sys.argv[1]) as temporary:
    target = temporary if {what == "file"} else temporary / "part"
    target.write_text("half")
    os._exit(9)
"""
    if what == "file":
        path = tmp_path / "a.txt"
        path.write_text("old")
    else:
        path = ours(tmp_path / "sub")
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    ran = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        env={**os.environ, "PYTHONPATH": root},
    )
    assert ran.returncode == 9
    kept = path if what == "file" else path / "part"
    assert kept.read_text() == "old"


def test_a_folder_replaces_ours_at_the_end_only(tmp_path):
    folder = ours(tmp_path / "sub")
    with atomic_folder(folder) as temporary:
        (temporary / "part").write_text("new")
        assert (folder / "part").read_text() == "old"
    assert names(folder) == ["part"]
    assert (folder / "part").read_text() == "new"
    assert names(tmp_path) == ["sub"]


def test_a_folder_failure_keeps_the_old(tmp_path):
    folder = ours(tmp_path / "sub")
    with pytest.raises(KeyError), atomic_folder(folder) as temporary:
        (temporary / "part").write_text("half")
        raise KeyError
    assert (folder / "part").read_text() == "old"
    assert names(tmp_path) == ["sub"]


def test_a_failed_exchange_brings_the_old_back(tmp_path, monkeypatch):
    folder = ours(tmp_path / "sub")
    rename = os.rename

    def broken(source, target):
        if ".tmp-" in str(source):
            raise OSError("disk gone")
        rename(source, target)

    monkeypatch.setattr(os, "rename", broken)
    with pytest.raises(OSError, match="disk gone"):
        with atomic_folder(folder) as temporary:
            (temporary / "part").write_text("new")
    assert (folder / "part").read_text() == "old"
    assert names(tmp_path) == ["sub"]


def test_new_and_empty_folders_are_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "deep/new"):
        with atomic_folder(tmp_path / name) as temporary:
            (temporary / "part").write_text("new")
        assert names(tmp_path / name) == ["part"]


@pytest.mark.parametrize("kind", ["foreign", "model", "broken", "file"])
def test_what_is_not_ours_is_left_alone(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    if kind == "model":
        (path / "config.json").write_text('{"model_type": "wav2vec2"}')
    if kind == "broken":
        (path / "config.json").write_text("{")
    before = folder_sizes(path)
    with pytest.raises(SettingError, match="another name"):
        with atomic_folder(path):
            raise AssertionError("must not be reached")
    assert folder_sizes(path) == before and names(tmp_path) == ["x"]


def test_json_there_and_back(tmp_path):
    value = {"ü": [1, 2.5, None, True], "deep": {"a": "中"}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "中" in text and text.endswith("}\n")


def test_json_of_numpy_and_paths(tmp_path):
    value = {
        "a": np.float32(0.5),
        "b": np.arange(2),
        "c": tmp_path,
        "d": np.bool_(True),
        "e": {3, 1},
    }
    assert json.loads(to_json(value)) == {
        "a": 0.5,
        "b": [0, 1],
        "c": str(tmp_path),
        "d": True,
        "e": [1, 3],
    }


@pytest.mark.parametrize("value", [float("nan"), np.inf, object(), {(1, 2): 3}])
def test_what_json_cannot_hold(tmp_path, value):
    with pytest.raises(SettingError, match="cannot be written as JSON"):
        write_json(
            tmp_path / "a.json", {"a": value} if value == value else value
        )
    assert names(tmp_path) == []


@pytest.mark.parametrize("data", [b"", b'{"a": 1', b"\xff\xfe", b"[" * 100000])
def test_broken_json_names_the_file(tmp_path, data):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.json is not valid JSON"):
        read_json(path)


def test_missing_files(tmp_path):
    for read in (read_json, sha256_file, folder_sizes):
        with pytest.raises(NotFoundError, match="no such f"):
            read(tmp_path / "none")


def test_sha256(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(data)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_sizes(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_bytes(b"12345")
    (tmp_path / "a").write_bytes(b"123")
    assert folder_sizes(tmp_path) == {"a": 3, "sub/b": 5}
    assert folder_sizes(tmp_path / "a") == {"a": 3}
