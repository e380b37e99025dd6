"""Clips are decoded once, and again only when they changed."""

import os

import numpy as np
import pytest
import soundfile

from s3router.data import clips
from s3router.data.clips import ClipChecker


@pytest.fixture
def folder(tmp_path):
    for i in range(5):
        samples = np.full(1600 * (i + 1), 0.1)
        soundfile.write(tmp_path / f"{i}.wav", samples, 16000)
    return tmp_path


def paths(folder):
    return [folder / f"{i}.wav" for i in (4, 2, 0, 2, 3, 1)]


def check(folder, **options):
    checker = ClipChecker(folder / "memory.jsonl", progress=False, **options)
    return checker, checker.check(paths(folder))


@pytest.mark.parametrize("num_threads", [1, 4])
def test_order_and_memory(folder, num_threads):
    checker, results = check(folder, num_threads=num_threads)
    durations = [r.duration for r in results]
    assert durations == pytest.approx([0.5, 0.3, 0.1, 0.3, 0.4, 0.2])
    assert checker.decoded == 5  # one of the six stood twice
    again, same = check(folder)
    assert again.decoded == 0 and same == results


def test_parts_join_up(folder, monkeypatch):
    monkeypatch.setattr(clips, "_PART", 2)
    _, results = check(folder)
    assert [round(r.duration, 3) for r in results] == [
        0.5,
        0.3,
        0.1,
        0.3,
        0.4,
        0.2,
    ]


def test_changed_clips_are_decoded_again(folder):
    check(folder)
    soundfile.write(folder / "2.wav", np.zeros(800), 16000)
    (folder / "3.wav").unlink()
    status = os.stat(folder / "4.wav")
    os.utime(folder / "4.wav", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    checker, results = check(folder)
    assert checker.decoded == 3
    assert [r.problem for r in results] == ["", "", "", "", "missing", ""]
    assert results[1].duration == 0.05
    assert "missing" not in (folder / "memory.jsonl").read_text()
    # A clip that came back is seen, though it was missing before.
    soundfile.write(folder / "3.wav", np.zeros(1600), 16000)
    assert check(folder)[1][4].problem == ""


def test_a_killed_run_goes_on(folder):
    memory = folder / "memory.jsonl"
    check(folder)
    whole = memory.read_bytes()
    lines = whole.splitlines(keepends=True)
    memory.write_bytes(b"".join(lines[:3]) + lines[3][:-9])
    checker, results = check(folder)
    assert checker.decoded == 2
    assert all(not r.problem for r in results)
    assert check(folder)[0].decoded == 0


@pytest.mark.parametrize(
    "junk", [b"\xff\xfe\n", b"[]\n", b"{}\n", b"[1, 2, 3, 4]\n", b"\n\n"]
)
def test_a_damaged_memory_costs_time_only(folder, junk):
    (folder / "memory.jsonl").write_bytes(junk)
    checker, results = check(folder)
    assert checker.decoded == 5 and all(not r.problem for r in results)
    assert check(folder)[0].decoded == 0
