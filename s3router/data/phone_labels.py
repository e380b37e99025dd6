"""Clips whose phones are known, without times: a manifest and its phones.

Beside the CSV of a pack lies `extra.csv`, which says the phones of each clip:
a column `phones` (words apart by "|", phones by spaces), or tones that were
taken out of a text that is IPA already (`tone_letters`). Reads text only.
"""

import csv
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from s3router.errors import DataError, NotFoundError

EXTRA = "extra.csv"

#: Columns by their name here, and those that may hold them.
_NAMES = {"speaker": ("spk_id", "speaker"), "text": ("wrd", "text")}

_TIES = "\u0361\u035c"
#: Letters that change the phone before them: raised letters, length.
_MODIFIERS = frozenset("ːˑ")


class PhoneClip(NamedTuple):
    """A clip and its phones, by word; `wav` is a path that can be opened.

    Example
    -------
    >>> PhoneClip("a", "a.wav", "s", (("t", "u"),)).phones
    ['t', 'u']
    """

    id: str
    wav: str
    speaker: str
    words: tuple[tuple[str, ...], ...]

    @property
    def phones(self) -> list[str]:
        """All phones, in order."""
        return [phone for word in self.words for phone in word]


def arpabet_words(text: str) -> tuple[tuple[str, ...], ...]:
    """Return phones by word, without the digits of stress.

    Arguments
    ---------
    text : str
        Phones apart by spaces, words by "|".

    Returns
    -------
    tuple of tuple of str
        Phones of each word; empty words are left out.

    Example
    -------
    >>> arpabet_words("Z IH1 R OW0 | T UW0")
    (('Z', 'IH', 'R', 'OW'), ('T', 'UW'))
    """
    words = [
        tuple(phone.rstrip("012") for phone in word.split())
        for word in text.split("|")
    ]
    return tuple(word for word in words if word)


def ipa_words(text: str) -> tuple[tuple[str, ...], ...]:
    """Return the phones of a text in IPA, by word.

    Arguments
    ---------
    text : str
        Letters with their diacritics; words apart by spaces.

    Returns
    -------
    tuple of tuple of str
        A letter with its diacritics, raised letters and length; two letters
        under a tie are one phone. What is no letter is left out.

    Example
    -------
    >>> ipa_words("t͡ɕʰi r̥e")
    (('t͡ɕʰ', 'i'), ('r̥', 'e'))
    """
    words = []
    for word in unicodedata.normalize("NFD", text).split():
        phones: list[str] = []
        for letter in word:
            kind = unicodedata.category(letter)
            tied = phones and phones[-1][-1] in _TIES
            if phones and (kind in ("Mn", "Lm") or letter in _MODIFIERS):
                phones[-1] += letter
            elif kind.startswith("L") and tied:
                phones[-1] += letter
            elif kind.startswith("L"):
                phones.append(letter)
        if phones:
            words.append(tuple(phones))
    return tuple(words)


def read_phone_clips(
    path: str | os.PathLike, limit: int | None = None, seed: int = 0
) -> list[PhoneClip]:
    """Read the clips of a manifest with the phones of each.

    Arguments
    ---------
    path : str or path
        A CSV with the columns ID, wav, speaker (or spk_id) and text (or
        wrd); paths of audio are absolute or relative to its folder.
        `extra.csv` lies beside it.
    limit : int or None
        Draw so many clips; None: all. The order of the file is kept.
    seed : int
        Of the draw.

    Returns
    -------
    list of PhoneClip
        Clips without phones are left out.

    Raises
    ------
    NotFoundError
        If one of the files is missing.
    DataError
        If a column is missing, an ID stands twice or has no row in
        `extra.csv`, or no clip has phones.
    """
    path = Path(path)
    rows = _rows(path, ("ID", "wav", *_NAMES))
    words = _phones(path, rows)
    clips = []
    for number, row in rows.items():
        if words[number]:
            wav = str(path.parent / row["wav"])
            clips.append(PhoneClip(number, wav, row["speaker"], words[number]))
    if not clips:
        raise DataError(f"no clip of {path} has phones")
    return _draw(clips, limit, seed)


def _draw(
    clips: list[PhoneClip], limit: int | None, seed: int
) -> list[PhoneClip]:
    if limit is None or limit >= len(clips):
        return clips
    chosen = np.random.default_rng(seed).permutation(len(clips))[:limit]
    return [clips[index] for index in sorted(chosen)]


def _phones(
    path: Path, rows: dict[str, dict[str, str]]
) -> dict[str, tuple[tuple[str, ...], ...]]:
    extra_path = path.parent / EXTRA
    extra = _rows(extra_path, ("ID",))
    columns = next(iter(extra.values())).keys()
    if "phones" not in columns and "tone_letters" not in columns:
        raise DataError(
            f"{extra_path} says nothing of phones: it needs a column phones, "
            "words apart by | and phones by spaces"
        )
    absent = [number for number in rows if number not in extra]
    if absent:
        raise DataError(
            f"{extra_path} has no row for {len(absent)} clips of {path}, as "
            f"{absent[0]}"
        )
    if "phones" in columns:
        return {n: arpabet_words(extra[n]["phones"]) for n in rows}
    return {n: ipa_words(row["text"]) for n, row in rows.items()}


def _rows(path: Path, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return rows by ID, columns by their names here."""
    if not path.is_file():
        raise NotFoundError(f"no such file: {path}")
    rows: dict[str, dict[str, str]] = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True, restval="")
        try:
            names = _columns(reader.fieldnames or (), columns, path)
            for row in reader:
                if row["ID"] in rows:
                    where = f"{path}, line {reader.line_num}"
                    raise DataError(f"{where}: {row['ID']!r} stands twice")
                own = {name: row[column] for name, column in names.items()}
                rows[row["ID"]] = own
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is no CSV in UTF-8: {error}") from error
    if not rows:
        raise DataError(f"{path} has no rows")
    return rows


def _columns(
    present: Sequence[str], wanted: Sequence[str], path: Path
) -> dict[str, str]:
    names = {name: name for name in present}
    for name in wanted:
        found = [one for one in _NAMES.get(name, (name,)) if one in present]
        if not found:
            raise DataError(
                f"{path} lacks the column {name}; it has "
                f"{', '.join(present) or 'none'}"
            )
        names[name] = found[0]
    return names
