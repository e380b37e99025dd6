"""Reading weight files from strangers: tensors only, never code.

safetensors is preferred. A pickle (.bin) is read with torch's weights-only
unpickler, which knows tensors and plain containers and refuses the rest; no
option here switches that off.
"""

import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from s3router.errors import FormatError, NotFoundError
from s3router.formats.files import read_json

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def read_folder_weights(folder: Path) -> dict[str, Tensor]:
    """Read all weights of a Hugging Face model folder.

    Arguments
    ---------
    folder : pathlib.Path
        With model.safetensors or pytorch_model.bin, whole or in shards.

    Returns
    -------
    dict of str to torch.Tensor
        By the names in the file, in the types of the file.

    Raises
    ------
    NotFoundError
        If there is no weight file.
    FormatError
        If a file is damaged or holds more than tensors.
    """
    for name in WEIGHT_FILES:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return read_weight_file(folder / name)
        if index.is_file():
            return _read_shards(folder, index)
    raise NotFoundError(
        f"{folder} has no weights: it has neither {' nor '.join(WEIGHT_FILES)}"
    )


def read_weight_file(path: Path) -> dict[str, Tensor]:
    """Read one weight file.

    Arguments
    ---------
    path : pathlib.Path
        A .safetensors file, or a pickle of nothing but tensors.

    Returns
    -------
    dict of str to torch.Tensor
        By the names in the file, in the types of the file.

    Raises
    ------
    FormatError
        If the file is damaged or holds more than tensors.
    """
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise FormatError(
                f"{path} is damaged or was not downloaded to its end: "
                f"{one_line(error)}; download it again"
            ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FormatError(
            f"{path} is a pickle that holds more than tensors, and is not "
            f"loaded: it could run code here. Convert it to safetensors on a "
            f"machine you trust it on ({one_line(error)})"
        ) from error
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise FormatError(
            f"{path} is damaged or was not downloaded to its end: "
            f"{one_line(error)}; download it again"
        ) from error
    tensors = isinstance(state, dict) and all(
        isinstance(value, Tensor) for value in state.values()
    )
    if not tensors:
        raise FormatError(f"{path} is not a mapping of names to tensors")
    return dict(state)


def one_line(error: BaseException, limit: int = 160) -> str:
    """Return the first line of an error's text.

    Arguments
    ---------
    error : BaseException
        Anything raised by a library.
    limit : int
        Characters to keep.

    Returns
    -------
    str
        Never empty: the class's name if there is no text.
    """
    text = " ".join(str(error).split("\n", maxsplit=1)[0].split())
    return text[:limit] or type(error).__name__


def _read_shards(folder: Path, index: Path) -> dict[str, Tensor]:
    """Read the files that an index names."""
    values = read_json(index)
    where = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(where, dict):
        raise FormatError(f"{index} has no weight_map")
    state: dict[str, Tensor] = {}
    for shard in sorted(set(where.values())):
        # An index may only name files beside it.
        path = folder / Path(str(shard)).name
        if not path.is_file():
            raise NotFoundError(
                f"{path} is missing, though {index.name} names it"
            )
        state.update(read_weight_file(path))
    return state
