"""Write files and folders whole or not at all, read JSON, hash, measure.

Everything that this package writes goes through here. Must not know what the
files mean, and must not import torch.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from s3router.errors import FormatError, NotFoundError, SettingError

#: A folder with one of these, holding a `format_version`, is one of ours.
MANIFESTS = ("config.json", "manifest.json")


def _beside(path: Path, what: str) -> Path:
    """Return a fresh hidden name in the same folder, so that rename works."""
    return path.with_name(f".{what}-{secrets.token_hex(6)}-{path.name}")


def _flush(path: Path) -> None:
    """Push a file's bytes to the disk, before its name points at them."""
    with open(path, "rb") as file, suppress(OSError):
        os.fsync(file.fileno())


@contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` only if the block succeeds.

    Arguments
    ---------
    path : str or path
        The file to write. Its folder is made if missing; an old file of this
        name stays untouched until the new one is complete.

    Yields
    ------
    pathlib.Path
        Where to write: beside `path`, with the same suffix.

    Raises
    ------
    NotFoundError
        If the block ended without writing the file.

    Example
    -------
    >>> folder = Path(getfixture("tmp_path"))
    >>> with atomic_file(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> (folder / "a.txt").read_text(), len(list(folder.iterdir()))
    ('whole', 1)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, "tmp")
    try:
        yield temporary
        if not temporary.is_file():
            raise NotFoundError(f"nothing was written for {path}")
        _flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` if the block succeeds.

    A folder that is there already is replaced only if it is empty or one of
    ours (it holds a manifest with a `format_version`), and only at the very
    end: a failure or a kill in the block leaves it as it was.

    Arguments
    ---------
    path : str or path
        The folder to write.

    Yields
    ------
    pathlib.Path
        An empty folder beside `path`.

    Raises
    ------
    SettingError
        If `path` is a file, or a folder that this package did not write.
    """
    path = Path(os.path.abspath(path))
    _check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _beside(path, "tmp"), _beside(path, "old")
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        if path.exists():
            os.rename(path, old)
        try:
            os.rename(temporary, path)
        except OSError:
            if old.exists():
                os.rename(old, path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)


def _check_replaceable(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        raise SettingError(
            f"cannot write a folder to {path}: it is a file or a link; "
            "remove it or choose another name"
        )
    if not path.is_dir() or not any(path.iterdir()):
        return
    if not any(_is_ours(path / name) for name in MANIFESTS):
        raise SettingError(
            f"will not replace the folder {path}: s3router did not write it; "
            "choose another name or remove it yourself"
        )


def _is_ours(manifest: Path) -> bool:
    try:
        content = read_json(manifest)
    except (FormatError, NotFoundError):
        return False
    return isinstance(content, dict) and "format_version" in content


def to_json(value: Any) -> str:
    """Return the JSON text of a value: UTF-8, indented, ends with a newline.

    Arguments
    ---------
    value : object
        Plain values, and also numpy scalars, arrays and paths, which are
        written as numbers, lists and text. NaN and infinity are refused.

    Returns
    -------
    str
        The text.

    Raises
    ------
    SettingError
        If the value has a part that JSON cannot hold.

    Example
    -------
    >>> to_json({"rate": np.float32(0.5)})
    '{\\n  "rate": 0.5\\n}\\n'
    """
    try:
        text = json.dumps(
            value,
            indent=2,
            ensure_ascii=False,
            allow_nan=False,
            default=_plain,
        )
    except (TypeError, ValueError) as error:
        raise SettingError(f"cannot be written as JSON: {error}") from error
    return text + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} is not a plain value")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write a value as JSON, whole or not at all; see `to_json`."""
    text = to_json(value)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file.

    Arguments
    ---------
    path : str or path
        The file.

    Returns
    -------
    object
        What it holds.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If it is not UTF-8 or not JSON; the text names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"no such file: {path}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FormatError(
            f"{path} is not valid JSON ({error}): it is truncated or altered"
        ) from error


def sha256_file(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"no such file: {path}")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_sizes(folder: str | os.PathLike) -> dict[str, int]:
    """Return the size in bytes of every file under a folder, by its path.

    Arguments
    ---------
    folder : str or path
        The folder, or one file.

    Returns
    -------
    dict
        Path relative to `folder` (with `/`) to bytes, in order of name.

    Example
    -------
    >>> folder = Path(getfixture("tmp_path"))
    >>> write_json(folder / "a.json", {})
    >>> folder_sizes(folder)
    {'a.json': 3}
    """
    folder = Path(folder)
    if folder.is_file():
        return {folder.name: folder.stat().st_size}
    if not folder.is_dir():
        raise NotFoundError(f"no such folder: {folder}")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        file.relative_to(folder).as_posix(): file.stat().st_size
        for file in files
    }
