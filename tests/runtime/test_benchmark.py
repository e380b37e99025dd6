"""Measuring in processes of their own: turns, clocks, what goes wrong."""

import itertools
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from toy_bundles import TOKENS, make_toy_bundle

from s3router.errors import S3RouterError
from s3router.formats.bundle import Bundle
from s3router.runtime import benchmark as module
from s3router.runtime import benchmark_report
from s3router.runtime.benchmark import (
    Device,
    Subject,
    Worker,
    all_devices,
    measure,
    measure_switch,
    noise_clips,
    write_clips,
)
from s3router.runtime.benchmark_report import (
    describe_sizes,
    measure_modes,
    measure_row,
)

ONE = Device("1 thread", threads=1)
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """Return a bundle of two toy languages."""
    folder = tmp_path_factory.mktemp("toy") / "bundle"
    return make_toy_bundle(folder, {"aa": TOKENS, "bb": TOKENS})


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("clips") / "a.npy"
    np.save(path, np.zeros(8000, np.float32))
    return str(path)


def private_bytes(process: int) -> int:
    """Return what a process has of no file, mapping by mapping."""
    text = Path(f"/proc/{process}/smaps").read_text()
    return 1024 * sum(
        map(int, re.findall(r"^Private_Dirty: +(\d+)", text, re.M))
    )


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux tells")
def test_memory_is_what_another_process_sees(toy, clip):
    with Worker() as worker:
        opened = worker.open(Subject(toy, "aa"), ONE)
        assert 0 < opened["after"]["private"] - opened["before"]["private"]
        worker.ask("run", clip=clip)
        told = worker.ask("memory")
        seen = private_bytes(worker._process.pid)
        assert abs(told["private"] - seen) < MEGABYTE
        assert seen < told["peak"]


def test_a_worker_says_what_went_wrong_and_goes_on(toy, clip):
    with Worker() as worker:
        with pytest.raises(S3RouterError, match="no such bundle folder"):
            worker.open(Subject(toy / "none", "aa"), ONE)
        with pytest.raises(S3RouterError, match="unknown request 'rum'"):
            worker.ask("rum", clip=clip)
        worker.open(Subject(toy, "aa"), ONE)
        spent = worker.ask("run", clip=clip)
        assert 0 < spent["cpu"] and 0 < spent["wall"]


def test_a_process_that_ended_is_told_of(toy):
    with Worker() as worker:
        worker._process.kill()
        worker._process.wait()
        with pytest.raises(S3RouterError, match="ended: exit code -9"):
            worker.open(Subject(toy, "aa"), ONE)
    with Worker() as worker:
        # Not a request: the worker dies of it, with a reason.
        with pytest.raises(S3RouterError, match="ended: .*unexpected keyword"):
            worker.ask("run", klip="x")


def test_what_libraries_print_is_no_answer(toy, tmp_path, monkeypatch):
    # As broken as an installation of both kinds, and talkative.
    (tmp_path / "onnxruntime.py").write_text("print('hello', flush=True)\n")
    paths = [str(tmp_path), *filter(None, sys.path)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    with Worker() as worker:
        with pytest.raises(S3RouterError, match="onnxruntime is broken"):
            worker.open(Subject(toy, "aa"), ONE)


def test_no_process_is_left(toy):
    with Worker() as worker:
        process = worker._process.pid
        worker.open(Subject(toy, "aa"), ONE)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


class Recorded:
    """Stands for a worker; takes a second more for each request."""

    def __init__(self, requests: list[str], clock: itertools.count) -> None:
        self.requests, self.clock, self.name = requests, clock, ""

    def __enter__(self) -> "Recorded":
        return self

    def __exit__(self, *error: object) -> None:
        self.requests.append(f"end {self.name}")

    def open(self, subject: Subject, device: Device) -> dict:
        self.name = subject.language
        self.requests.append(f"open {self.name}")
        use = {"private": 100, "peak": None}
        after = {"private": 250 if self.name == "x" else 200, "peak": None}
        return {"wall": 1.0, "cpu": 2.0, "before": use, "after": after}

    def ask(self, action: str, clip: str = "") -> dict:
        if action == "memory":
            return {"private": 300, "peak": None}
        self.requests.append(f"{self.name} {clip}")
        spent = float(next(self.clock))
        return {"wall": spent, "cpu": 10 * spent}


@pytest.fixture
def recorded(monkeypatch) -> list[str]:
    """Return what workers are asked from here on."""
    requests, clock = [], itertools.count(1)
    monkeypatch.setattr(module, "Worker", lambda: Recorded(requests, clock))
    return requests


def test_what_is_compared_takes_turns_and_warms_up(recorded):
    clips = {"short": "s", "long": "l"}
    found = measure(Subject("b", "x"), ONE, clips, Subject("d", "y"), 2, 2)
    turn = ["x s", "y s", "x l", "y l"]
    one_round = ["open x", "open y", *(3 * turn), "end y", "end x"]
    assert recorded == 2 * one_round
    # Requests 1 to 4 and 13 to 16 only warm up.
    assert found["subject"]["clips"]["short"]["wall"] == {
        "minimum": 5.0,
        "median": 13.0,
        "all": [5.0, 9.0, 17.0, 21.0],
    }
    assert found["reference"]["clips"]["long"]["cpu"]["minimum"] == 80.0
    assert found["subject"]["loaded"] == {"private": 250, "peak": None}


def test_ratios_are_of_the_numbers_beside_them(recorded):
    clips = {"short": ("s", 0.5)}
    devices = [ONE, Device("2 threads", threads=2)]
    row = measure_row(
        Subject("b", "x"), clips, devices, Subject("d", "y"), 1, 2
    )
    assert row["opened"] == 150 and row["dense"]["opened"] == 100
    assert row["opened_of_dense"] == 1.5 and row["load_of_dense"] == 1.0
    one, two = (row["devices"][device.name] for device in devices)
    # One thread goes by process time, several by the wall.
    assert (one["clock"], two["clock"]) == ("cpu", "wall")
    told = one["clips"]["short"]
    assert told["cpu"]["all"] == [30.0, 50.0]
    assert told["dense"]["cpu"]["all"] == [40.0, 60.0]
    assert told["real_time_factor"] == 60.0 and told["of_dense"] == 0.75
    told = two["clips"]["short"]
    assert told["wall"]["minimum"] == 9.0
    assert told["real_time_factor"] == 18.0 and told["of_dense"] == 0.9


def test_what_cannot_be_measured_gives_its_reason(toy, clip):
    clips = {"c": (clip, 0.5)}
    row = measure_row(Subject(toy, "aa", "swich"), clips, [ONE], None, 1, 1)
    assert row["why_not"].startswith("unknown mode 'swich'")
    assert row["devices"]["1 thread"]["why_not"] == row["why_not"]
    device = Device("x", "nothing")
    row = measure_row(Subject(toy, "aa"), clips, [ONE, device], None, 1, 1)
    assert row["why_not"] is None and row["run"]["peak"] > 0
    assert "unknown provider" in row["devices"]["x"]["why_not"]


def test_a_switch_is_timed_there_and_back(toy):
    found = measure_switch(Subject(toy, "aa"), ["bb", "aa"], ONE, repeats=3)
    assert len(found["switch"]["wall"]["all"]) == 5
    assert found["first"]["wall"] > 0 and found["further"] < 50 * MEGABYTE
    (row,) = measure_modes(str(toy), "aa", ["lean"])
    assert "layout shared" in row["why_not"]


def test_one_language_cannot_be_changed(tmp_path):
    folder = make_toy_bundle(tmp_path / "one")
    (row,) = measure_modes(str(folder), "xx", ["fold"])
    assert row == {"mode": "fold", "why_not": "the bundle has one language"}


def test_a_language_that_a_mode_cannot_hold_is_passed_over(
    tmp_path, monkeypatch
):
    folder = make_toy_bundle(
        tmp_path / "b", dict.fromkeys("aa bb cc dd".split(), TOKENS)
    )
    asked = []

    def measure_some(subject, languages, device):
        asked.append((subject.mode, *languages))
        if subject.mode == "switch" and languages[0] == "bb":
            raise S3RouterError("bb is no mask")
        if subject.mode == "none":
            raise S3RouterError("no such mode")
        return {"first": languages[0]}

    monkeypatch.setattr(benchmark_report, "measure_switch", measure_some)
    modes = ["fold", "switch", "none"]
    assert list(measure_modes(str(folder), "aa", modes)) == [
        {"mode": "fold", "why_not": None, "first": "bb"},
        {"mode": "switch", "why_not": None, "first": "cc"},
        {"mode": "none", "why_not": "no such mode"},
    ]
    # Nor is every language asked, where it is not the languages.
    assert asked == [
        ("fold", "bb", "aa"),
        ("switch", "bb", "aa"),
        ("switch", "cc", "aa"),
        ("none", "bb", "aa"),
        ("none", "cc", "aa"),
    ]


def test_a_task_that_classifies_is_run(tmp_path, clip):
    folder = make_toy_bundle(tmp_path / "b")
    path = folder / "xx" / "model.onnx"
    model = onnx.load(path)
    graph = model.graph
    graph.node[-1].output[0] = "frame_logits"
    graph.node.append(
        helper.make_node(
            "Einsum", ["frame_logits"], ["logits"], equation="ntv->nv"
        )
    )
    del graph.output[0].type.tensor_type.shape.dim[1]
    onnx.save(model, path)
    bundle = Bundle.load(folder)
    entry = bundle.languages["xx"]
    bundle.languages["xx"] = replace(entry, task="classification")
    bundle.save(folder)
    row = measure_row(
        Subject(folder, "xx"), {"c": (clip, 0.5)}, [ONE], None, 1, 1
    )
    assert row["why_not"] is None
    assert row["devices"]["1 thread"]["clips"]["c"]["real_time_factor"] > 0


def test_noise_is_the_same_each_time(tmp_path):
    clips = noise_clips([0.5, 2.0], 8000)
    written = write_clips(clips, 8000, tmp_path)
    assert {name: s for name, (_, s) in written.items()} == {
        "0.5 s": 0.5,
        "2 s": 2.0,
    }
    again = noise_clips([0.5, 2.0], 8000)
    for name, (path, _) in written.items():
        stored = np.load(path)
        assert stored.dtype == np.float32 and 0.09 < stored.std() < 0.11
        np.testing.assert_array_equal(stored, again[name])


def test_devices_are_named_by_their_threads():
    named = {d.name: (d.providers, d.threads) for d in all_devices([1, 4])}
    assert named == {
        "1 thread": ("cpu", 1),
        "4 threads": ("cpu", 4),
        "CUDA": ("cuda", None),
        "TensorRT": ("tensorrt", None),
    }


def test_sizes_are_those_of_the_files(toy):
    sizes = describe_sizes(Bundle.load(toy))
    for code, size in sizes["languages"].items():
        files = (toy / code).iterdir()
        assert size == sum(path.stat().st_size for path in files)
    assert sizes["bytes"] == sum(sizes["languages"].values())
    assert sizes["encoder"] == "toy"
