"""The CSV that says which clip holds which words.

SpeechBrain's columns (ID, duration, wav, spk_id, wrd) and `language`. Reading
and writing only: no audio is opened, no text changed.
"""

import csv
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypedDict

from s3router.errors import DataError, NotFoundError
from s3router.formats.files import atomic_file

COLUMNS = ("ID", "duration", "wav", "spk_id", "wrd", "language")


class Utterance(TypedDict):
    """One row: a clip and its transcript.

    `ID` is unique in the file, `duration` in seconds, `wav` a path, `spk_id`
    the speaker, `wrd` the normalised transcript, `language` a Common Voice
    name.
    """

    ID: str
    duration: float
    wav: str
    spk_id: str
    wrd: str
    language: str


def write_manifest(
    path: str | os.PathLike, rows: Iterable[Mapping[str, object]]
) -> int:
    """Write a manifest, whole or not at all.

    Arguments
    ---------
    path : str or path
        The CSV file.
    rows : iterable of mapping
        Utterances with all of `COLUMNS`.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    DataError
        If a row lacks a column or repeats an ID; nothing is written then.

    Example
    -------
    >>> path = Path(getfixture("tmp_path")) / "train.csv"
    >>> row = Utterance(ID="a", duration=1.5, wav="/x/a.mp3", spk_id="s",
    ...                 wrd="你好", language="zh-CN")
    >>> write_manifest(path, [row])
    1
    >>> read_manifest(path) == [row]
    True
    """
    seen: set[str] = set()
    with atomic_file(path) as temporary:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for row in rows:
                writer.writerow(_cells(row, path, seen))
    return len(seen)


def _cells(row: Mapping, path: str | os.PathLike, seen: set[str]) -> list:
    absent = [name for name in COLUMNS if name not in row]
    if absent:
        raise DataError(f"a row for {path} lacks {', '.join(absent)}: {row}")
    if row["ID"] in seen:
        raise DataError(f"two rows for {path} have the ID {row['ID']!r}")
    seen.add(row["ID"])
    # repr keeps every bit of a float, so that a re-run writes the same file.
    return [
        repr(float(row[name])) if name == "duration" else row[name]
        for name in COLUMNS
    ]


def read_manifest(path: str | os.PathLike) -> list[Utterance]:
    """Read a manifest and check that it is one.

    Arguments
    ---------
    path : str or path
        The CSV file; further columns are left aside.

    Returns
    -------
    list of Utterance
        The rows, in the order of the file.

    Raises
    ------
    NotFoundError
        If there is no such file.
    DataError
        If a column is missing, a row is short, an ID stands twice, a duration
        is no number, or there are no rows.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"no such manifest: {path}; prepare the data first")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        try:
            rows = _checked(reader, path)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is no CSV in UTF-8: {error}") from error
    if not rows:
        raise DataError(f"{path} has no rows")
    return rows


def _checked(reader: csv.DictReader, path: Path) -> list[Utterance]:
    present = reader.fieldnames or []
    absent = [name for name in COLUMNS if name not in present]
    if absent:
        raise DataError(
            f"{path} lacks the column {', '.join(absent)}; "
            f"it has {', '.join(present) or 'none'}"
        )
    rows: dict[str, Utterance] = {}
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        if any(row[name] is None for name in COLUMNS):
            raise DataError(f"{where}: fewer cells than columns")
        if row["ID"] in rows:
            raise DataError(f"{where}: the ID {row['ID']!r} stands twice")
        values = {name: row[name] for name in COLUMNS}
        values["duration"] = _seconds(row["duration"], where)
        rows[row["ID"]] = Utterance(**values)
    return list(rows.values())


def _seconds(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise DataError(f"{where}: {text!r} is no duration in seconds")
    return value
