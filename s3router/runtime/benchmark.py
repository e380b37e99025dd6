"""Measures bundles: load time, memory, speed, change of language.

Each measurement is made in a fresh process. What is compared takes turns, run
by run, so that what else the machine does falls on both. Needs what a device
has: numpy and onnxruntime.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from s3router.errors import S3RouterError, SettingError
from s3router.runtime.cores import usable_cores
from s3router.runtime.providers import choose_providers

WORKER = "s3router.runtime.benchmark_worker"


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Arguments
    ---------
    bundle : str
        The bundle folder.
    language : str
        Code of a language in it.
    mode : str
        How weights are held, see `open_session`.
    """

    bundle: str
    language: str
    mode: str = "fold"


@dataclass(frozen=True)
class Device:
    """What it is measured on.

    Arguments
    ---------
    name : str
        For people: "1 thread", "CUDA".
    providers : str
        "cpu", "cuda" or "tensorrt".
    threads : int, optional
        Of the CPU.
    """

    name: str
    providers: str = "cpu"
    threads: int | None = None

    @property
    def clock(self) -> str:
        """Return which time counts: "cpu" where one thread does all the work,
        as other programs disturb it least, else "wall"."""
        alone = self.providers == "cpu" and self.threads == 1
        return "cpu" if alone else "wall"

    def why_not(self) -> str | None:
        """Return why nothing can be measured on it here, or None."""
        try:
            choose_providers(self.providers)
        except SettingError as error:
            return str(error)
        return None


GPUS = (Device("CUDA", "cuda"), Device("TensorRT", "tensorrt"))


def all_devices(threads: Sequence[int]) -> list[Device]:
    """Return the CPU with so many threads each, and every kind of GPU."""
    names = (f"{count} thread" + "s" * (count > 1) for count in threads)
    cpus = [Device(n, "cpu", c) for n, c in zip(names, threads, strict=True)]
    return [*cpus, *GPUS]


def usual_threads() -> list[int]:
    """Return one thread, and as many as there are cores to use."""
    return sorted({1, usable_cores()})


def noise_clips(lengths: Sequence[float], rate: int) -> dict[str, np.ndarray]:
    """Return noise to run where there is no audio.

    Arguments
    ---------
    lengths : sequence of float
        Seconds.
    rate : int
        Samples per second.

    Returns
    -------
    dict
        Name to (samples,) float32, the same in every call.
    """
    noise = np.random.default_rng(0).standard_normal
    return {
        f"{seconds:g} s": noise(round(seconds * rate), np.float32) / 10
        for seconds in lengths
    }


def write_clips(
    clips: Mapping[str, np.ndarray], rate: int, folder: Path
) -> dict[str, tuple[str, float]]:
    """Write what is to be run where other processes find it.

    Arguments
    ---------
    clips : mapping
        Name to (samples,) float32.
    rate : int
        Samples per second.
    folder : pathlib.Path
        Where to write.

    Returns
    -------
    dict
        Name to a `.npy` file, and its seconds.
    """
    written = {}
    for index, (name, samples) in enumerate(clips.items()):
        path = folder / f"clip_{index}.npy"
        np.save(path, samples)
        written[name] = (str(path), len(samples) / rate)
    return written


class Worker:
    """A process with recognisers, see `benchmark_worker`; a context manager."""

    def __enter__(self) -> "Worker":
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
        )
        return self

    def __exit__(self, *error: object) -> None:
        # It ends with its input. What it says last is nobody's concern.
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._errors.close()

    def ask(self, action: str, **arguments: Any) -> dict[str, Any]:
        """Let the process do something, and return what it measured.

        Arguments
        ---------
        action : str
            A method of `benchmark_worker.Measured`.
        **arguments : Any
            Its arguments.

        Returns
        -------
        dict
            Its answer.

        Raises
        ------
        S3RouterError
            If it failed, or the process ended.
        """
        try:
            print(
                json.dumps({"do": action, **arguments}),
                file=self._process.stdin,
                flush=True,
            )
        except OSError:
            pass  # It has ended; what follows says so.
        line = self._process.stdout.readline()
        if not line:
            raise S3RouterError(f"the measured process ended: {self._last()}")
        answer = json.loads(line)
        if "error" in answer:
            raise S3RouterError(answer["error"])
        return answer

    def open(self, subject: Subject, device: Device) -> dict[str, Any]:
        """Open a subject; see `benchmark_worker.Measured.open`."""
        return self.ask(
            "open",
            bundle=os.fspath(subject.bundle),
            language=subject.language,
            mode=subject.mode,
            providers=device.providers,
            threads=device.threads,
        )

    def _last(self) -> str:
        """Return the last line that the process wrote on its stderr."""
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1] if said else f"exit code {self._process.returncode}"


def summary(times: Sequence[float]) -> dict[str, Any]:
    """Return minimum, median and all of some seconds.

    Arguments
    ---------
    times : sequence of float
        At least one.

    Returns
    -------
    dict
        "minimum", "median", "all".

    Example
    -------
    >>> summary([3.0, 1.0, 2.0])
    {'minimum': 1.0, 'median': 2.0, 'all': [3.0, 1.0, 2.0]}
    """
    return {
        "minimum": min(times),
        "median": statistics.median(times),
        "all": list(times),
    }


def measure(
    subject: Subject,
    device: Device,
    clips: Mapping[str, str],
    reference: Subject | None = None,
    rounds: int = 2,
    repeats: int = 2,
) -> dict[str, Any]:
    """Load and run a subject, and a reference in turns with it.

    Arguments
    ---------
    subject : Subject
        What is measured.
    device : Device
        On what.
    clips : mapping of str to str
        Name to a `.npy` file of `(samples,)` float32.
    reference : Subject, optional
        What it is compared with.
    rounds : int
        How often both are loaded, in fresh processes.
    repeats : int
        How often each clip is run in each of them, after one run that warms
        up.

    Returns
    -------
    dict
        "subject" and, with a reference, "reference"; each with "load", "wall"
        and "cpu" seconds as of `summary`; "before", "loaded" and "run", the
        memory before and after loading and after the runs, as of
        `memory_use`, in the median; and "clips", by name "wall" and "cpu".

    Raises
    ------
    S3RouterError
        If one of them cannot be opened or run.
    """
    subjects = {"subject": subject}
    if reference is not None:
        subjects["reference"] = reference
    gathered: dict[str, list[dict[str, Any]]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, one in _round(subjects, device, clips, repeats).items():
            gathered[name].append(one)
    return {name: _gather(each) for name, each in gathered.items()}


def measure_switch(
    subject: Subject, languages: Sequence[str], device: Device, repeats: int = 4
) -> dict[str, Any]:
    """Measure the change of language.

    Arguments
    ---------
    subject : Subject
        What is opened first.
    languages : sequence of str
        To change to, one after the other.
    device : Device
        On what.
    repeats : int
        How often to go through them.

    Returns
    -------
    dict
        "first": seconds of the first change, which has files to check;
        "switch": those of the others; "further": bytes of private memory
        that a second recogniser takes in the same process, for the first of
        the languages; "switched": those that changing added to the first.

    Raises
    ------
    S3RouterError
        If it cannot be opened or changed.
    """
    with Worker() as worker:
        opened = worker.open(subject, device)
        spent = [
            worker.ask("switch", language=code)
            for _ in range(repeats)
            for code in languages
        ]
        switched = worker.ask("memory")
    with Worker() as worker:
        worker.open(subject, device)
        other = Subject(subject.bundle, languages[0], subject.mode)
        further = worker.open(other, device)
    return {
        "first": spent[0],
        "switch": _clocks(spent[1:] or spent),
        "further": _growth(further["before"], further["after"]),
        "switched": _growth(opened["after"], switched),
    }


def _round(
    subjects: Mapping[str, Subject],
    device: Device,
    clips: Mapping[str, str],
    repeats: int,
) -> dict[str, dict[str, Any]]:
    """Load each subject in a process of its own and run them in turns."""
    with contextlib.ExitStack() as stack:
        workers, done = {}, {}
        for name, subject in subjects.items():
            workers[name] = stack.enter_context(Worker())
            done[name] = {"load": workers[name].open(subject, device)}
            done[name]["clips"] = {clip: [] for clip in clips}
        for turn in range(repeats + 1):
            for clip, path in clips.items():
                for name, worker in workers.items():
                    spent = worker.ask("run", clip=path)
                    if turn:  # the first one warms up
                        done[name]["clips"][clip].append(spent)
        for name, worker in workers.items():
            done[name]["memory"] = worker.ask("memory")
    return done


def _gather(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what all rounds say of one subject."""
    return {
        "load": _clocks([one["load"] for one in rounds]),
        "before": _memory([one["load"]["before"] for one in rounds]),
        "loaded": _memory([one["load"]["after"] for one in rounds]),
        "run": _memory([one["memory"] for one in rounds]),
        "clips": {
            clip: _clocks([t for one in rounds for t in one["clips"][clip]])
            for clip in rounds[0]["clips"]
        },
    }


def _clocks(spent: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    return {
        clock: summary([one[clock] for one in spent])
        for clock in ("wall", "cpu")
    }


def _memory(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the median of each kind; None where the system does not tell."""
    return {
        kind: None
        if rounds[0][kind] is None
        else int(statistics.median(one[kind] for one in rounds))
        for kind in rounds[0]
    }


def _growth(
    before: Mapping[str, int | None], after: Mapping[str, int | None]
) -> int | None:
    if before["private"] is None or after["private"] is None:
        return None
    return after["private"] - before["private"]
