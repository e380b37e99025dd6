"""config.json of a subnetwork: what it must hold, and how it is checked.

It holds size and SHA-256 of every other file, and a checksum of itself, so
that no part can change unnoticed. Must not import torch.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s3router.errors import FormatError, NotFoundError
from s3router.formats.files import read_json, sha256_file

FORMAT_VERSION = 1
#: Without these a subnetwork cannot be used, so it cannot be saved either.
REQUIRED = (
    "method",
    "language",
    "task",
    "encoder",
    "fingerprint",
    "sample_rate",
)
CONFIG, MASK, HEAD = "config.json", "mask.safetensors", "head.safetensors"
TOKENS, TOKENIZER = "tokens.txt", "tokenizer.model"
WEIGHTS = "weights.safetensors"
#: Written by `save` and checked by `load`; not part of `Subnetwork.config`.
CHECKS = ("files", "checksum")


def read_config(folder: Path) -> dict[str, Any]:
    """Return the checked config of a subnetwork folder.

    Arguments
    ---------
    folder : pathlib.Path
        The folder.

    Returns
    -------
    dict
        Everything in `config.json`, `files` and `checksum` too.

    Raises
    ------
    NotFoundError
        If it is not there.
    FormatError
        If it is altered, of another version, or something else.
    """
    if not folder.is_dir():
        raise NotFoundError(f"no such subnetwork folder: {folder}")
    path = folder / CONFIG
    if not path.is_file():
        raise NotFoundError(f"{folder} is not a subnetwork: no {CONFIG} in it")
    config = read_json(path)
    if not isinstance(config, dict) or "format_version" not in config:
        raise FormatError(
            f"{path} is not the config of a subnetwork: no format_version"
        )
    if config["format_version"] != FORMAT_VERSION:
        raise FormatError(
            f"{path} has format_version {config['format_version']!r}, this "
            f"s3router reads {FORMAT_VERSION}: use the s3router that wrote it"
        )
    if config.get("checksum") != checksum(config):
        raise FormatError(f"{path} does not match its checksum: it is altered")
    files = config.get("files")
    known = {MASK, HEAD, TOKENS, TOKENIZER, WEIGHTS}
    if not isinstance(files, dict) or not (
        {MASK, HEAD, TOKENS} <= set(files) <= known
    ):
        raise FormatError(f"{path}: its list of files is wrong")
    return config


def check_file(path: Path, expected: Mapping[str, Any]) -> None:
    """Raise FormatError unless a file has the `bytes` and `sha256` noted."""
    if not path.is_file():
        raise NotFoundError(f"{path.name} is missing in {path.parent}")
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise FormatError(
            f"{path} is truncated or altered: {size} bytes instead of "
            f"{expected['bytes']}"
        )
    if sha256_file(path) != expected["sha256"]:
        raise FormatError(f"{path} is altered: its SHA-256 does not match")


def checksum(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a config, independent of layout and order."""
    content = {key: config[key] for key in config if key != "checksum"}
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
