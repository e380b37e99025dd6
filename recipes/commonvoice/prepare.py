#!/usr/bin/env python3
"""Makes manifests of one language of Common Voice.

`train.py` calls it; by itself, from the repository's root:
> python recipes/commonvoice/prepare.py --data_folder=/path/to/cv-corpus \
    --language=zh-CN --save_folder=manifests

Reads the release as it is unpacked, `<data_folder>/<language>/{train,dev,
test}.tsv` and `clips/` (mp3, wav, flac, opus or ogg). Every clip is decoded
once. What cannot be used is left out, counted, and listed with its reason in
`skipped.json`; dev and test lose nothing but what cannot be read or scored.
"""

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from s3router.data.clips import ClipChecker
from s3router.data.common_voice import (
    ClipFinder,
    Row,
    find_language,
    read_table,
)
from s3router.data.manifest import Utterance
from s3router.data.splits import Split, write_splits
from s3router.data.subset import balanced_order
from s3router.data.text import normalize_text
from s3router.errors import SettingError, exit_on_error
from s3router.runtime.cores import usable_cores

logger = logging.getLogger(__name__)

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Options:
    """What decides which rows are kept; see `prepare_commonvoice`."""

    train_minutes: float | None = None
    min_seconds: float = 0.1
    max_seconds: float = 15.0
    sample_rate: int = 16000
    min_samples: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.min_seconds < self.max_seconds:
            raise SettingError(
                f"min_seconds {self.min_seconds} must be at least 0 and less "
                f"than max_seconds {self.max_seconds}"
            )
        if self.train_minutes is not None and not self.train_minutes > 0:
            raise SettingError(
                f"train_minutes must be greater than 0, or null for all, not "
                f"{self.train_minutes}"
            )


def prepare_commonvoice(
    data_folder: str | os.PathLike,
    language: str,
    save_folder: str | os.PathLike,
    train_minutes: float | None = None,
    min_seconds: float = 0.1,
    max_seconds: float = 15.0,
    sample_rate: int = 16000,
    min_samples: int = 400,
    seed: int = 0,
    clip_memory: str | os.PathLike | None = None,
    num_threads: int | None = None,
    progress: bool = True,
) -> dict[str, dict]:
    """Write `train.csv`, `dev.csv`, `test.csv` and `skipped.json`.

    Everything is derived anew at each call, so that other options or other
    data always take effect; only the decoding of a clip, which is what takes
    time, is remembered, by path, size and time of change.

    Arguments
    ---------
    data_folder : str or path
        The unpacked release, or the language's folder in it.
    language : str
        Name of its folder, as "zh-CN".
    save_folder : str or path
        Where the four files go; made if missing.
    train_minutes : float, optional
        Draw about so many minutes for training, speaker-balanced, by the
        seed; a longer draw holds the shorter ones. None takes all.
    min_seconds, max_seconds : float
        Clips outside are left out of training, never of dev or test.
    sample_rate : int
        Samples per second that the encoder takes.
    min_samples : int
        Shortest audio that gives the encoder one frame.
    seed : int
        Seed of the draw.
    clip_memory : str or path, optional
        File that remembers decoded clips; runs may share it. None:
        `clips.jsonl` in the save folder.
    num_threads : int, optional
        Decoders at a time. None: as many as cores, at most 8.
    progress : bool
        Show progress bars.

    Returns
    -------
    dict
        Split name to `rows`, `kept`, `minutes`, `not_drawn` and `skipped`
        (reason to count).

    Raises
    ------
    NotFoundError
        If the data folder lacks what it should have.
    DataError
        If a table lacks a column, or all of a split is skipped.
    SettingError
        If an option cannot work.
    """
    options = Options(
        train_minutes, min_seconds, max_seconds, sample_rate, min_samples, seed
    )
    folder = find_language(data_folder, language, SPLITS)
    save_folder = Path(save_folder)
    checker = ClipChecker(
        clip_memory or save_folder / "clips.jsonl",
        num_threads or min(8, usable_cores()),
        progress,
    )
    work = _Preparer(folder, language, options, checker)
    # Dev and test first: training may not have what they have.
    splits = {name: work.prepare(name) for name in ("dev", "test", "train")}
    return write_splits(
        save_folder,
        [splits[name] for name in SPLITS],
        {
            "language": language,
            "source": str(folder.absolute()),
            "options": asdict(options),
        },
    )


class _Preparer:
    """Goes through the tables of one language."""

    def __init__(
        self,
        folder: Path,
        language: str,
        options: Options,
        checker: ClipChecker,
    ) -> None:
        self.folder = folder
        self.language = language
        self.options = options
        self.checker = checker
        self.finder = ClipFinder(folder / "clips")
        self.evaluation: set[str] = set()

    def prepare(self, name: str) -> Split:
        """Return what becomes of one table."""
        table = self.folder / f"{name}.tsv"
        rows, broken = read_table(table, self.language)
        split = Split(name, str(table), len(rows) + len(broken))
        for line, text in broken:
            split.skip(line, text[:60], "malformed row")
        candidates = list(self._with_words(rows, split))
        if name == "train" and self.options.train_minutes is not None:
            self._draw(candidates, split)
        else:
            self._check(candidates, split)
        if name != "train":
            self.evaluation.update(row.name for row in rows)
        # A draw comes in its own order, skipped rows as they are met.
        place = {row.name: row.line for row, _ in candidates}
        split.kept.sort(key=lambda u: place[u["ID"]])
        split.skipped.sort(key=lambda s: s["line"])
        return split

    def _with_words(
        self, rows: list[Row], split: Split
    ) -> Iterator[tuple[Row, str]]:
        """Yield rows that are new and have words."""
        seen: set[str] = set()
        for row in rows:
            words = normalize_text(row.sentence, self.language)
            if row.name in seen:
                split.skip(row.line, row.path, "repeated in the table")
            elif split.name == "train" and row.name in self.evaluation:
                split.skip(row.line, row.path, "also in dev or test")
            elif not words:
                detail = repr(row.sentence)
                split.skip(row.line, row.path, "empty sentence", detail)
            else:
                seen.add(row.name)
                yield row, words

    def _check(self, candidates: list[tuple[Row, str]], split: Split) -> None:
        """Decode the clips; keep those that can be used."""
        paths = [self.finder.find(row) for row, _ in candidates]
        label = f"{self.language} {split.name}"
        checks = self.checker.check(paths, label)
        for (row, words), path, check in zip(
            candidates, paths, checks, strict=True
        ):
            if check.problem:
                split.skip(row.line, row.path, check.problem, check.detail)
            elif reason := self._bad_length(check.duration, split.name):
                detail = f"{check.duration:.3f} s"
                split.skip(row.line, row.path, reason, detail)
            else:
                split.kept.append(
                    Utterance(
                        ID=row.name,
                        duration=check.duration,
                        wav=str(path),
                        spk_id=row.client_id or "unknown",
                        wrd=words,
                        language=self.language,
                    )
                )

    def _bad_length(self, seconds: float, split: str) -> str:
        options = self.options
        if round(seconds * options.sample_rate) < options.min_samples:
            return "too short for the encoder"
        if split == "train" and seconds < options.min_seconds:
            return "shorter than min_seconds"
        if split == "train" and seconds > options.max_seconds:
            return "longer than max_seconds"
        return ""

    def _draw(self, candidates: list[tuple[Row, str]], split: Split) -> None:
        """Check clips in drawing order until there are enough minutes."""
        names = [(row.name, row.client_id) for row, _ in candidates]
        order = balanced_order(names, self.options.seed)
        wanted = 60 * self.options.train_minutes
        part, seconds = 64, 0.0
        for start in range(0, len(order), part):
            drawn = Split(split.name)
            chosen = [candidates[i] for i in order[start : start + part]]
            self._check(chosen, drawn)
            split.skipped += drawn.skipped
            for utterance in drawn.kept:
                if seconds >= wanted:
                    break
                seconds += utterance["duration"]
                split.kept.append(utterance)
            if seconds >= wanted:
                break
        if seconds < wanted:
            logger.warning(
                "train: %.1f of the %.1f minutes asked for are all there is",
                seconds / 60,
                self.options.train_minutes,
            )
        split.not_drawn = split.rows - len(split.kept) - len(split.skipped)


@exit_on_error
def main(arguments: list[str]) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("data_folder", "language", "save_folder"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--train_minutes", type=float)
    parser.add_argument("--min_seconds", type=float, default=0.1)
    parser.add_argument("--max_seconds", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prepare_commonvoice(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    main(sys.argv[1:])
