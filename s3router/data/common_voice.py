"""Reads a Common Voice release as it is unpacked.

A release is `<data_folder>/<language>/{train,dev,test,...}.tsv` and `clips/`.
Finds the folder, reads the tables, finds the clips; says what is missing and
where it is to be had. Chooses and changes nothing.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from s3router.data.languages import base_language
from s3router.errors import DataError, NotFoundError

COLUMNS = ("client_id", "path", "sentence")

SUFFIXES = (".mp3", ".wav", ".flac", ".opus", ".ogg")

SOURCE = (
    "Common Voice is to be had from the Mozilla Data Collective "
    "(https://mozilladatacollective.com; see https://commonvoice.mozilla.org): "
    "unpack a language's archive and give the folder that holds"
)


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Arguments
    ---------
    line : int
        Its number in the file, from 1.
    client_id : str
        The speaker.
    path : str
        Name of the clip, in old releases without a suffix.
    sentence : str
        As released.
    locale : str
        Language, empty in old releases.
    """

    line: int
    client_id: str
    path: str
    sentence: str
    locale: str = ""

    @property
    def name(self) -> str:
        """Return the clip's name without folder and audio suffix."""
        name = Path(self.path).name
        stem, suffix = os.path.splitext(name)
        return stem if suffix.lower() in SUFFIXES else name


def find_language(
    data_folder: str | os.PathLike,
    language: str,
    tables: Sequence[str] = ("train", "dev", "test"),
) -> Path:
    """Return the folder with the tables of a language.

    Arguments
    ---------
    data_folder : str or path
        The release, or the language's folder itself.
    language : str
        Name of the folder, as "zh-CN".
    tables : sequence of str
        Tables that must be there.

    Returns
    -------
    pathlib.Path
        Folder with the tables and `clips`.

    Raises
    ------
    NotFoundError
        If something is not there: one line says what, what is there instead,
        and where the data come from.
    SettingError
        If `language` is no name.
    """
    base_language(language)
    root = Path(data_folder).expanduser()
    wanted = f"{language}/train.tsv"
    if not root.is_dir():
        raise NotFoundError(f"no such data folder: {root}. {SOURCE} {wanted}")
    folder = root / language
    if not folder.is_dir():
        if not _is_language(root):
            raise NotFoundError(_lost(root, language))
        folder = root
    names = [f"{table}.tsv" for table in tables]
    missing = [name for name in names if not (folder / name).is_file()]
    if not (folder / "clips").is_dir():
        missing.append("clips/")
    if missing:
        raise NotFoundError(
            f"{folder} lacks {', '.join(missing)}; it has {_contents(folder)}. "
            f"{SOURCE} {wanted}"
        )
    return folder


def _is_language(folder: Path) -> bool:
    return any(folder.glob("*.tsv"))


def _lost(root: Path, language: str) -> str:
    text = f"{root} has no {language}/train.tsv; it has {_contents(root)}. "
    deeper = sorted(root.glob(f"*/{language}/*.tsv"))
    if deeper:
        return text + f"Did you mean {deeper[0].parent.parent}?"
    # "zh", "zh_CN" and "zh-cn" for zh-CN.
    start = language.replace("_", "-").split("-")[0].lower()
    for child in sorted(root.iterdir()):
        if child.name.replace("_", "-").split("-")[0].lower() == start:
            if child.is_dir() and _is_language(child):
                return text + f"Did you mean language {child.name!r}?"
    archives = sorted(root.glob("*.tar.gz")) + sorted(root.glob("*.tgz"))
    if archives:
        return text + f"Unpack {archives[0].name} first."
    return text + f"{SOURCE} {language}/train.tsv"


def _contents(folder: Path, most: int = 8) -> str:
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return (", ".join(names[:most]) or "nothing") + more


def read_table(
    path: str | os.PathLike, language: str = ""
) -> tuple[list[Row], list[tuple[int, str]]]:
    """Read a TSV of a release.

    Cells are not quoted there: a quotation mark is part of the sentence.

    Arguments
    ---------
    path : str or path
        The TSV.
    language : str
        If given, the `locale` column, where there is one, must name it.

    Returns
    -------
    tuple
        The rows, and line number and text of lines with too few cells.

    Raises
    ------
    DataError
        If a column is missing, there are no rows, the text is not UTF-8, or
        the rows are of another language.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    columns = lines[0].split("\t")
    absent = [name for name in COLUMNS if name not in columns]
    if absent:
        raise DataError(
            f"{path} lacks the column {', '.join(absent)}; it has "
            f"{', '.join(columns) if lines[0] else 'none'}"
        )
    # Other line ends (U+2028) may stand in a sentence: split at "\n" only.
    rows, broken = _rows(lines, columns)
    if not rows:
        raise DataError(f"{path} has no rows but its header")
    locales = {row.locale for row in rows} - {""}
    if language and locales and not _names(locales, language):
        raise DataError(
            f"{path} is of language {', '.join(sorted(locales)[:3])}, not "
            f"{language}; give the release's folder or --language"
        )
    return rows, broken


def _rows(
    lines: Sequence[str], columns: Sequence[str]
) -> tuple[list[Row], list[tuple[int, str]]]:
    places = [columns.index(name) for name in COLUMNS]
    locale = columns.index("locale") if "locale" in columns else None
    rows, broken = [], []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) <= max(places) or not cells[places[1]].strip():
            broken.append((number, line))
            continue
        values = [cells[place] for place in places]
        # Some releases leave empty cells out at the end of a line.
        known = locale is not None and len(cells) > locale
        rows.append(Row(number, *values, cells[locale] if known else ""))
    return rows, broken


def _names(locales: Iterable[str], language: str) -> bool:
    wanted = language.replace("_", "-").lower()
    return any(name.replace("_", "-").lower() == wanted for name in locales)


class ClipFinder:
    """Finds the file of a clip, whatever its suffix.

    Arguments
    ---------
    folder : str or path
        The folder `clips`. It is listed once.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder).absolute()
        with os.scandir(self.folder) as entries:
            self._names = {entry.name for entry in entries}

    def find(self, row: Row) -> Path:
        """Return the path of a clip.

        Arguments
        ---------
        row : Row
            Its row.

        Returns
        -------
        pathlib.Path
            The file as the table names it; else the same name with one of
            `SUFFIXES`, for old releases and converted clips; else, where
            there is none, what the table says.
        """
        given = Path(row.path).name
        for name in (given, *(row.name + suffix for suffix in SUFFIXES)):
            if name in self._names:
                return self.folder / name
        return self.folder / given
