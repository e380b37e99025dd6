"""One JSON per run: what was run, with what, where, and what came out.

A result can be read, compared and printed (`tables.py`) without the run's
folder. It names no folder of the machine that it was made on: paths are kept
relative to the working folder, or by their last name.
"""

import dataclasses
import datetime
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from s3router.errors import FormatError, SettingError
from s3router.evaluation.provenance import (
    command_line,
    git_commit,
    library_versions,
    machine,
)
from s3router.formats.files import read_json, write_json

FORMAT_VERSION = 1
REQUIRED_KEYS = (
    "format_version",
    "config",
    "seed",
    "metrics",
    "extra",
    "versions",
    "commit",
    "machine",
    "date",
    "command",
)
_ABSOLUTE_PATH = re.compile(r"(?<![\w.:/~-])/[^\s'\",;:=\[\]]+")


def write_result(
    path: str | Path,
    *,
    config: Mapping[str, object],
    seed: int,
    metrics: Mapping[str, object],
    extra: Mapping[str, object] | None = None,
    command: str | None = None,
) -> Path:
    """Write the result of one run, whole or not at all.

    Arguments
    ---------
    path : str or pathlib.Path
        The JSON to write; its folder is made.
    config : mapping
        The resolved settings. Values are numbers, texts, None, lists,
        mappings or dataclasses; see `plain_settings` for a YAML that also
        holds objects.
    seed : int
        The training seed.
    metrics : mapping
        What was measured: `ErrorRate` objects, numbers, texts, lists or
        mappings of them.
    extra : mapping, optional
        What else a table needs, as language and method.
    command : str, optional
        The command to show; default is the one of this process.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    SettingError
        If a value cannot stand in JSON; the text names its key.
    """
    path = Path(path)
    typed = command_line() if command is None else command
    result = {
        "format_version": FORMAT_VERSION,
        "config": portable(config, "config"),
        "seed": int(seed),
        "metrics": portable(metrics, "metrics"),
        "extra": portable(extra or {}, "extra"),
        "versions": library_versions(),
        "commit": git_commit(),
        "machine": machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(
            timespec="seconds"
        ),
        "command": shorten_paths(typed),
    }
    write_json(path, result)
    return path


def read_result(path: str | Path) -> dict[str, object]:
    """Read a result and check that it is one.

    Arguments
    ---------
    path : str or pathlib.Path
        A JSON that `write_result` wrote.

    Returns
    -------
    dict
        Its keys are `REQUIRED_KEYS`.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If it is no JSON, lacks a key, or is of an unknown version.
    """
    result = read_json(Path(path))
    if not isinstance(result, dict):
        raise FormatError(f"{path} is not a result: it holds no mapping")
    version = result.get("format_version")
    if version != FORMAT_VERSION:
        raise FormatError(
            f"{path}: format_version is {version!r}, "
            f"this version reads {FORMAT_VERSION}"
        )
    missing = [key for key in REQUIRED_KEYS if key not in result]
    if missing:
        raise FormatError(f"{path} is not a result: no {', '.join(missing)}")
    for key in ("config", "metrics", "extra"):
        if not isinstance(result[key], dict):
            raise FormatError(f"{path} is not a result: {key} is no mapping")
    return result


def plain_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Keep the settings of a loaded YAML that are values, not objects.

    Arguments
    ---------
    settings : mapping
        What hyperpyyaml returns: numbers and texts beside models and
        optimizers.

    Returns
    -------
    dict
        The entries that can stand in a result.

    Example
    -------
    >>> plain_settings({"lr": 0.1, "cost": print, "sizes": [1, 2]})
    {'lr': 0.1, 'sizes': [1, 2]}
    """
    kept = {}
    for key, value in settings.items():
        try:
            kept[key] = portable(value, key)
        except SettingError:
            continue
    return kept


def portable(value: object, where: str) -> object:
    """Return a value as JSON can hold it, without this machine's paths.

    Arguments
    ---------
    value : object
        The value, or a nest of them.
    where : str
        Its name, for the error.

    Returns
    -------
    object
        None, bool, int, float, str, list or dict. Numbers that are not
        finite become None, as JSON has no word for them.

    Raises
    ------
    SettingError
        If a value is none of these.
    """
    # numpy and torch scalars, without importing either.
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | Path):
        return shorten_paths(str(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {str(k): portable(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [portable(v, f"{where}[{i}]") for i, v in enumerate(value)]
    raise SettingError(
        f"{where} is a {type(value).__name__}: a result holds numbers, texts, "
        f"lists and mappings only"
    )


def shorten_paths(text: str) -> str:
    """Replace absolute paths in a text by what means the same elsewhere.

    Arguments
    ---------
    text : str
        A path, or a command with paths in it.

    Returns
    -------
    str
        Paths in or beside the working folder become relative to it, others
        keep their last name only, after `.../`.

    Example
    -------
    >>> shorten_paths("train.py --data_folder=/mnt/disk7/anna/cv-corpus")
    'train.py --data_folder=.../cv-corpus'
    """
    return _ABSOLUTE_PATH.sub(lambda found: _shorten(found.group()), text)


def _shorten(path: str) -> str:
    relative = os.path.relpath(path)
    if Path(relative).parts.count("..") <= 1:
        return relative
    return f".../{Path(path).name}"
