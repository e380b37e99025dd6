"""Named float32 arrays in a safetensors file: heads and tuned weights.

Must not know what the arrays are for, and must not import torch.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from s3router.errors import FormatError, NotFoundError, SettingError
from s3router.formats.files import atomic_file


def save_arrays(
    path: str | os.PathLike, arrays: Mapping[str, np.ndarray]
) -> None:
    """Write named arrays, whole or not at all.

    Arguments
    ---------
    path : str or path
        The file, as a rule `*.safetensors`.
    arrays : mapping of str to numpy.ndarray
        float32, finite, any shape.

    Raises
    ------
    SettingError
        If an array has another dtype, or holds NaN or infinity.

    Example
    -------
    >>> path = getfixture("tmp_path") / "head.safetensors"
    >>> save_arrays(path, {"bias": np.zeros(2, np.float32)})
    >>> load_arrays(path)
    {'bias': array([0., 0.], dtype=float32)}
    """
    checked = checked_arrays(Path(path).name, arrays)
    with atomic_file(path) as temporary:
        save_file(checked, temporary)


def load_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read what `save_arrays` wrote.

    Arguments
    ---------
    path : str or path
        The file.

    Returns
    -------
    dict
        Name to float32 array.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If it is truncated, altered, or holds another dtype.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"no such file: {path}")
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise FormatError(
            f"{path} is not a readable safetensors file ({error}): it is "
            "truncated or altered"
        ) from error
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise FormatError(f"{path}: {name!r} is {array.dtype}, not float32")
    return arrays


def checked_arrays(
    what: str, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the arrays in C order, or say which one cannot be stored.

    Arguments
    ---------
    what : str
        What the arrays are, for the message.
    arrays : mapping of str to numpy.ndarray
        The arrays.

    Returns
    -------
    dict
        The same, each contiguous: safetensors writes the bytes of an array
        in the order of memory, so a transposed view would come back wrong.

    Raises
    ------
    SettingError
        If one is not float32, or holds NaN or infinity.
    """
    checked = {}
    for name, given in arrays.items():
        array = np.asarray(given, order="C")
        if array.dtype != np.float32:
            raise SettingError(
                f"{what}: {name!r} is {array.dtype}, it must be float32"
            )
        if not np.isfinite(array).all():
            raise SettingError(
                f"{what}: {name!r} holds NaN or infinity: training diverged"
            )
        checked[name] = array
    return checked
