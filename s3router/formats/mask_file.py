"""The mask file: one bit per weight in safetensors, shapes in its metadata.

Every mask is stored as bytes of eight weights, lowest bit first
(`np.packbits(..., bitorder="little")`), row by row. The metadata key
`s3router` is a JSON object with `format` ("mask"), `format_version`,
`shapes` by name, and `sha256` of all bits. Must not import torch.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from s3router.errors import FormatError, NotFoundError, SettingError
from s3router.formats.files import atomic_file

FORMAT_VERSION = 1


def save_masks(
    path: str | os.PathLike, masks: Mapping[str, np.ndarray]
) -> None:
    """Write masks, whole or not at all.

    Arguments
    ---------
    path : str or path
        The file, as a rule `mask.safetensors`.
    masks : mapping of str to numpy.ndarray
        Name of the masked linear layer to its mask, bool, any shape
        (`(out, in)` as a rule), True where the weight is kept.

    Raises
    ------
    SettingError
        If a mask is not bool.

    Example
    -------
    >>> path = getfixture("tmp_path") / "mask.safetensors"
    >>> save_masks(path, {"a": np.array([[True, False, True]])})
    >>> load_masks(path)
    {'a': array([[ True, False,  True]])}
    """
    packed, shapes = {}, {}
    for name in sorted(masks):
        mask = np.asarray(masks[name])
        if mask.dtype != np.bool_:
            raise SettingError(f"mask {name!r} is {mask.dtype}, not bool")
        shapes[name] = list(mask.shape)
        packed[name] = np.packbits(mask.reshape(-1), bitorder="little")
    header = {
        "format": "mask",
        "format_version": FORMAT_VERSION,
        "shapes": shapes,
        "sha256": _digest(packed, shapes),
    }
    # One metadata key only: the library writes several in random order, and
    # equal masks should give equal files.
    with atomic_file(path) as temporary:
        save_file(packed, temporary, {"s3router": json.dumps(header)})


def load_masks(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a mask file, strictly.

    Arguments
    ---------
    path : str or path
        The file.

    Returns
    -------
    dict
        Name to mask, bool, in the shape that was saved.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If it is truncated, altered, or not a mask file.
    """
    path = Path(path)
    header, packed = _read(path)
    if _digest(packed, header["shapes"]) != header["sha256"]:
        raise FormatError(f"{path}: the masks do not match their checksum")
    return {
        name: _unpack(path, name, packed[name], shape)
        for name, shape in header["shapes"].items()
    }


def _read(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    if not path.is_file():
        raise NotFoundError(f"no such mask file: {path}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            header = _check_header(path, metadata.get("s3router"))
            names = list(file.keys())
            packed = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise FormatError(
            f"{path} is not a readable safetensors file ({error}): it is "
            "truncated or altered"
        ) from error
    if set(packed) != set(header["shapes"]):
        odd = sorted(set(packed) ^ set(header["shapes"]))
        raise FormatError(f"{path}: its list of masks is wrong at {odd[0]!r}")
    return header, packed


def _check_header(path: Path, text: str | None) -> dict:
    try:
        header = json.loads(text) if text else {}
    except json.JSONDecodeError:
        header = {}
    if not isinstance(header, dict) or header.get("format") != "mask":
        raise FormatError(f"{path} is not a mask file of s3router")
    version = header.get("format_version")
    if version != FORMAT_VERSION:
        raise FormatError(
            f"{path} is a mask file of version {version!r}, this s3router "
            f"reads version {FORMAT_VERSION}: use the s3router that wrote it"
        )
    if not isinstance(header.get("shapes"), dict):
        raise FormatError(f"{path}: its list of masks is missing")
    header.setdefault("sha256", "")
    return header


def _unpack(
    path: Path, name: str, packed: np.ndarray, shape: list[int]
) -> np.ndarray:
    whole = isinstance(shape, list) and all(
        isinstance(size, int) and size >= 0 for size in shape
    )
    count = math.prod(shape) if whole else 0
    stored = (packed.dtype, packed.shape)
    if not whole or stored != (np.uint8, (-(-count // 8),)):
        raise FormatError(
            f"{path}: mask {name!r} has {packed.size} bytes of "
            f"{packed.dtype}, which do not fit its shape {shape}"
        )
    bits = np.unpackbits(packed, count=count, bitorder="little")
    return bits.view(np.bool_).reshape(shape)


def _digest(
    packed: Mapping[str, np.ndarray], shapes: Mapping[str, list]
) -> str:
    digest = hashlib.sha256()
    for name in sorted(packed):
        digest.update(json.dumps([name, shapes[name]]).encode())
        digest.update(np.ascontiguousarray(packed[name]).tobytes())
    return digest.hexdigest()
