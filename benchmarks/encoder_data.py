"""Packs of real speech as tasks with train, dev and test; labelled draws.

A pack is a folder `$S3ROUTER_SHARED/data/<pack>` with train.csv, dev.csv and
test.csv (ID, duration in seconds, wav, language, speaker, text). Reads tables
only; audio is `encoder_features.py`'s business.
"""

import csv
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from s3router.data.subset import balanced_order
from s3router.data.text import normalize_text
from s3router.data.token_table import BLANK, UNKNOWN
from s3router.data.tokens import CharTokens, Tokens
from s3router.errors import DataError, NotFoundError, one_of

SPLITS = ("train", "dev", "test")
COLUMNS = ("ID", "duration", "wav", "language", "speaker", "text")


@dataclass(frozen=True)
class Clip:
    """A recording and what it is labelled with.

    Arguments
    ---------
    id : str
        Unique in its pack.
    wav : pathlib.Path
        The audio.
    seconds : float
        Its duration.
    speaker, language : str
        As the pack names them.
    text : str
        What a task wants recognised: a transcript, phones, a class.
    """

    id: str
    wav: Path
    seconds: float
    speaker: str
    language: str
    text: str


@dataclass(frozen=True)
class TaskSettings:
    """What is recognised, and how errors are counted.

    Arguments
    ---------
    pack : str
        Folder in the shared data.
    labels : str
        `text` or `phones`.
    unit : str
        `char` (CER) or `word` (WER; of phones it is the PER).
    draws : str
        `each`: the labelled minutes that were asked for; `longest`: the
        longest of these; `all`: every label there is.
    """

    pack: str
    labels: str = "text"
    unit: str = "char"
    draws: str = "each"

    @property
    def measure(self) -> str:
        """Name of the error rate."""
        if self.labels == "phones":
            return "PER"
        return "CER" if self.unit == "char" else "WER"

    def minutes(self, asked: Sequence[float]) -> list[float | None]:
        """Return the labelled minutes that the task is tried with.

        None stands for all labels.
        """
        if self.draws == "all":
            return [None]
        return [max(asked)] if self.draws == "longest" else sorted(set(asked))


TASKS = {
    "ar_commands": TaskSettings("ar_commands"),
    # Twelve Chinese and eight English words by the same speakers.
    "zh_dsp20": TaskSettings("zh_dsp20"),
    "en_speechocean": TaskSettings(
        "en_speechocean", "phones", "word", "longest"
    ),
    "is_samromur": TaskSettings("is_samromur", draws="all"),
}


class PhoneTokens(Tokens):
    """Each symbol between spaces is a token, as ARPAbet phones.

    Example
    -------
    >>> tokens = PhoneTokens.from_texts(["AH B", "CH"])
    >>> tokens.encode("CH AH X"), tokens.decode([4, 2])
    ([4, 2, 1], 'CH AH')
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__(symbols)
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> "PhoneTokens":
        """Make the table of the symbols that occur, sorted."""
        found = {symbol for text in texts for symbol in text.split()}
        return cls([BLANK, UNKNOWN, *sorted(found)])

    def encode(self, text: str) -> list[int]:
        """Return one id for each symbol."""
        return [self._ids.get(s, self.unk_index) for s in text.split()]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the symbols with spaces between them."""
        return " ".join(self.symbols[i] for i in ids if i > self.unk_index)


@dataclass(frozen=True)
class Task:
    """A task with its clips.

    Arguments
    ---------
    name : str
        A key of `TASKS`.
    settings : TaskSettings
        How errors are counted.
    train, dev, test : list of Clip
        Speakers of one are in no other.
    """

    name: str
    settings: TaskSettings
    train: list[Clip]
    dev: list[Clip]
    test: list[Clip]

    def draw(self, minutes: float | None, seed: int) -> list[Clip]:
        """Return a speaker-balanced labelled part of train.

        With one seed, a longer draw holds each shorter one.
        """
        if minutes is None:
            return list(self.train)
        order = balanced_order([(c.id, c.speaker) for c in self.train], seed)
        drawn: list[Clip] = []
        seconds = 0.0
        for index in order:
            if seconds >= 60 * minutes:
                break
            drawn.append(self.train[index])
            seconds += self.train[index].seconds
        return drawn

    def tokens(self, clips: Sequence[Clip]) -> Tokens:
        """Return the tokens of the labelled clips; no other text is read."""
        kind = PhoneTokens if self.settings.labels == "phones" else CharTokens
        return kind.from_texts(clip.text for clip in clips)


def shared_data() -> Path:
    """Return the folder of packs.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    shared = os.environ.get("S3ROUTER_SHARED", "../shared")
    data = Path(shared) / "data"
    if not data.is_dir():
        raise NotFoundError(
            f"no real speech at {data}; set S3ROUTER_SHARED to the folder "
            f"that holds data/<pack>/train.csv"
        )
    return data


def load_task(name: str, data: Path, limit: int | None = None) -> Task:
    """Read a task's tables.

    Arguments
    ---------
    name : str
        A key of `TASKS`.
    data : pathlib.Path
        The folder of packs.
    limit : int, optional
        At most so many clips of dev and of test, spread evenly; for a quick
        look, not for results.

    Returns
    -------
    Task
        With normalised labels; clips whose label is empty are left out.
    """
    settings = TASKS[one_of(name, TASKS, "task")]
    folder = data / settings.pack
    phones = read_phones(folder) if settings.labels == "phones" else {}
    splits = {}
    for split in SPLITS:
        clips = []
        for clip in read_pack(data, settings.pack, split):
            if settings.labels == "phones":
                text = phones.get(clip.id, "")
            else:
                text = normalize_text(clip.text, clip.language)
            if text:
                clips.append(replace(clip, text=text))
        splits[split] = clips
    for split in SPLITS[1:]:
        splits[split] = spread(splits[split], limit)
    empty = [split for split in SPLITS if not splits[split]]
    if empty:
        raise DataError(f"{folder}: no labelled clip in {', '.join(empty)}")
    return Task(name, settings, **splits)


def read_pack(data: Path, pack: str, table: str) -> list[Clip]:
    """Return the clips of one table of a pack.

    Arguments
    ---------
    data : pathlib.Path
        The folder of packs.
    pack : str
        Name of the pack.
    table : str
        `train`, `dev`, `test`, `spkid_train` and so on.

    Returns
    -------
    list of Clip
        In the order of the table; texts as they stand there.
    """
    path = data / pack / f"{table}.csv"
    rows = _rows(path, COLUMNS)
    try:
        return [
            Clip(
                row["ID"],
                path.parent / row["wav"],
                float(row["duration"]),
                row["speaker"],
                row["language"],
                row["text"],
            )
            for row in rows
        ]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None


def read_phones(folder: Path) -> dict[str, str]:
    """Return clip ID to its phones, without stress and word boundaries."""
    rows = _rows(folder / "extra.csv", ("ID", "phones"))
    return {
        row["ID"]: " ".join(
            phone.rstrip("012")
            for phone in row["phones"].split()
            if phone != "|"
        )
        for row in rows
    }


def spread(clips: Sequence[Clip], most: int | None) -> list[Clip]:
    """Return at most so many clips, evenly over the list."""
    count = len(clips) if most is None else min(most, len(clips))
    return [clips[i * len(clips) // count] for i in range(count)]


def clips_key(*groups: Iterable[Clip]) -> str:
    """Return a short hash of clips and labels, by which work is kept."""
    digest = hashlib.sha256()
    for group in groups:
        for clip in group:
            digest.update(f"{clip.id}\x00{clip.text}\x01".encode())
        digest.update(b"\x02")
    return digest.hexdigest()[:12]


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    if not path.is_file():
        raise NotFoundError(
            f"no {path}; leave out what needs this pack (--tasks, --probes) "
            f"or set S3ROUTER_SHARED"
        )
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        absent = set(columns) - set(reader.fieldnames or [])
        if absent:
            raise DataError(f"{path} lacks {', '.join(sorted(absent))}")
        return list(reader)
