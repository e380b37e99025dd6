"""Real speech and what was said in it, to tell what fewer bits cost.

Reads the CSV of a prepared data set (columns wav, wrd, language) or of a pack
of recordings (wav, text, language); further columns are left aside.
"""

import csv
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s3router.data.text import normalize_text
from s3router.errors import DataError, NotFoundError, SettingError
from s3router.formats.language_codes import match_language
from s3router.runtime.audio import read_audio

#: Columns that may hold what was said, the first that is there.
TEXT = ("wrd", "text")


@dataclass(frozen=True)
class Spoken:
    """One clip and what was said in it.

    Arguments
    ---------
    samples : numpy.ndarray
        (samples,) float32 at the encoder's rate.
    text : str
        The transcript, as those that recognisers learn from.
    """

    samples: np.ndarray
    text: str


def read_transcripts(
    paths: Iterable[str | os.PathLike],
    languages: Iterable[str],
    sample_rate: int = 16000,
) -> dict[str, list[Spoken]]:
    """Read clips and transcripts of some languages.

    Arguments
    ---------
    paths : iterable of str or path
        CSV files; a `wav` is relative to the folder of its file.
    languages : iterable of str
        Codes of those wanted; rows of others are passed over. A row may say
        "zh" where "zh-CN" is wanted, or the other way round.
    sample_rate : int
        Wanted samples per second.

    Returns
    -------
    dict
        Language to its clips, in the order of the files.

    Raises
    ------
    NotFoundError
        If there is no such file, or a clip is missing.
    DataError
        If a file is no such CSV, or a clip cannot be read.
    SettingError
        If no row is of any of the languages.
    """
    found: dict[str, list[Spoken]] = {code: [] for code in languages}
    seen = set()
    for path in map(Path, paths):
        for name, wav, text in _rows(path):
            seen.add(name)
            code = _match(name, found)
            if code is not None:
                samples = read_audio(path.parent / wav, sample_rate)
                found[code].append(Spoken(samples, normalize_text(text, code)))
    if seen and not any(found.values()):
        raise SettingError(
            f"no transcript is of a language of the bundle: they are of "
            f"{', '.join(sorted(seen))}, it has {', '.join(found)}"
        )
    return found


def _match(name: str, codes: Iterable[str]) -> str | None:
    """Return which of the codes a row means."""
    try:
        return match_language(name, codes)
    except SettingError:
        # "zh-CN" in a bundle of "zh" is meant; in one of "zh-TW" it is not.
        stem = name.split("-")[0]
        return stem if stem in codes else None


def _rows(path: Path) -> list[tuple[str, str, str]]:
    """Return language, wav and text of each row."""
    if not path.is_file():
        raise NotFoundError(f"no such file of transcripts: {path}")
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            rows = list(csv.DictReader(file, skipinitialspace=True))
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is no CSV in UTF-8: {error}") from error
    if not rows:
        raise DataError(f"{path} has no rows")
    text = next((name for name in TEXT if name in rows[0]), TEXT[0])
    columns = ("language", "wav", text)
    if absent := [name for name in columns if name not in rows[0]]:
        raise DataError(
            f"{path} lacks the column {', '.join(absent)}; it has "
            f"{', '.join(map(str, rows[0]))}"
        )
    for number, row in enumerate(rows, 2):
        if any(row[name] is None for name in columns):
            raise DataError(f"{path}, row {number}: fewer cells than columns")
    return [tuple(row[name] for name in columns) for row in rows]
