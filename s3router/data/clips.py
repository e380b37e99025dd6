"""Decodes many clips once, in threads, and remembers what became of them.

The memory is a file of JSON lines that only grows, so that a run that was
killed goes on where it was. A clip is known by path, size and time of change.
Decides nothing: which clips to skip is the recipe's business.
"""

import json
import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from s3router.data.audio import AudioCheck, check_audio

logger = logging.getLogger(__name__)

# What a later version must not take over from an older one's memory.
_VERSION = 1

_PART = 256

_Key = tuple[str, int, int]


class ClipChecker:
    """Decodes clips and tells what is wrong with them.

    Arguments
    ---------
    memory : str or path
        File of what was decoded before; made if missing. One that is damaged
        costs time, not correctness: lines that cannot be read are left aside.
    num_threads : int
        Decoders at work at a time.
    progress : bool
        Show a progress bar while decoding.

    Example
    -------
    >>> checker = ClipChecker(Path(getfixture("tmp_path")) / "clips.jsonl")
    >>> checker.check(["/nowhere/a.mp3"])[0].problem
    'missing'
    """

    def __init__(
        self,
        memory: str | os.PathLike,
        num_threads: int = 1,
        progress: bool = True,
    ) -> None:
        self.memory = Path(memory)
        self.num_threads = num_threads
        self.progress = progress
        #: Clips that were decoded by this object, not remembered.
        self.decoded = 0
        self._known = _recall(self.memory)

    def check(
        self, paths: Sequence[str | os.PathLike], label: str = "clips"
    ) -> list[AudioCheck]:
        """Return what decoding gives, in the order of the paths.

        Arguments
        ---------
        paths : sequence of str or path
            Audio files.
        label : str
            What the progress bar calls them.

        Returns
        -------
        list of AudioCheck
            One for each path.
        """
        keys = [_key(path) for path in paths]
        todo = [key for key in dict.fromkeys(keys) if key not in self._known]
        if todo:
            self._decode(todo, label)
        return [self._known[key] for key in keys]

    def _decode(self, todo: list[_Key], label: str) -> None:
        self.memory.parent.mkdir(parents=True, exist_ok=True)
        bar = tqdm(
            total=len(todo),
            desc=f"decode {label}",
            unit="clip",
            disable=not self.progress,
            leave=False,
        )
        # libsndfile runs outside of Python's lock: threads do help.
        with (
            bar,
            ThreadPoolExecutor(max(1, self.num_threads)) as pool,
            self.memory.open("a", encoding="utf-8") as file,
        ):
            _end_line(file, self.memory)
            # In parts, so that an interrupt need not wait for all the rest.
            for start in range(0, len(todo), _PART):
                part = todo[start : start + _PART]
                checks = pool.map(check_audio, (path for path, _, _ in part))
                for key, check in zip(part, checks, strict=True):
                    self._known[key] = check
                    self.decoded += 1
                    if check.problem != "missing":
                        file.write(_line(key, check))
                    bar.update()
                file.flush()


def _key(path: str | os.PathLike) -> _Key:
    path = os.fspath(path)
    try:
        status = os.stat(path)
    except OSError:
        return path, -1, -1
    return path, status.st_size, status.st_mtime_ns


def _line(key: _Key, check: AudioCheck) -> str:
    values = [_VERSION, *key, check.duration, check.problem, check.detail]
    return json.dumps(values) + "\n"


def _end_line(file: TextIO, path: Path) -> None:
    # A run that was killed may have left half a line.
    if path.stat().st_size:
        with path.open("rb") as old:
            old.seek(-1, os.SEEK_END)
            if old.read() != b"\n":
                file.write("\n")


def _recall(path: Path) -> dict[_Key, AudioCheck]:
    known: dict[_Key, AudioCheck] = {}
    if not path.is_file():
        return known
    with path.open(encoding="utf-8", errors="replace") as file:
        for version, clip, size, changed, *result in _values(file):
            if version == _VERSION and len(result) == 3:
                known[clip, size, changed] = AudioCheck(*result)
    logger.debug("%d clips remembered from %s", len(known), path)
    return known


def _values(lines: Iterable[str]) -> Iterable[list]:
    for line in lines:
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, list) and len(values) >= 4:
            yield values
