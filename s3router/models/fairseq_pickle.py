"""Opening a fairseq checkpoint without running anything that is in it.

A fairseq `.pt` is a pickle. Beside tensors it holds settings (a dict, an
argparse.Namespace or an OmegaConf tree) and training state (dictionaries,
meters), all by the names of their classes. Here no such class is ever
imported: torch's weights-only unpickler runs, and the names on a short list
are answered with `Inert`, a stand-in that only remembers what it was given.
Every other name is refused, so a file that wants to run something fails to
load. Neither fairseq nor omegaconf is needed.
"""

import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from s3router.errors import FormatError
from s3router.models.weight_files import one_line

# Packages whose classes are answered by stand-ins, and single names.
INERT_PACKAGES = ("fairseq", "omegaconf", "numpy", "hydra")
INERT_NAMES = (
    "argparse.Namespace",
    "typing.Any",
    "builtins.dict",
    "builtins.list",
    "builtins.tuple",
    "builtins.str",
    "builtins.int",
    "builtins.float",
    "builtins.bool",
    "pathlib.PosixPath",
)


class Inert:
    """A stand-in for any object of a checkpoint: it keeps, and does nothing.

    Arguments
    ---------
    *arguments : object
        What the pickled class would have been called with.
    """

    def __new__(cls, *arguments: Any) -> "Inert":
        """Make an empty one, as unpickling does."""
        return super().__new__(cls)

    def __init__(self, *arguments: Any):
        # Under names that no state can overwrite by accident.
        self.inert_arguments = arguments
        self.inert_state: Any = None

    def __setstate__(self, state: Any) -> None:
        """Keep the state instead of becoming it."""
        self.inert_arguments = getattr(self, "inert_arguments", ())
        self.inert_state = state


def _plain_dict(*arguments: Any) -> dict:
    """Stand in for defaultdict: the unpickler fills exact dicts only."""
    return {}


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a fairseq checkpoint file.

    Arguments
    ---------
    path : pathlib.Path
        In torch's zip format or the older one (before torch 1.6).

    Returns
    -------
    dict
        "model" (names to tensors), and settings under "cfg" or "args" as
        stand-ins; see `plain`.

    Raises
    ------
    FormatError
        If the file is damaged, is no fairseq checkpoint, or asks for
        anything that is not on the list.
    """
    try:
        asked = global_names(path)
        allowed = [(Inert, name) for name in asked if _is_known(name)]
        allowed.append((_plain_dict, "collections.defaultdict"))
        with torch.serialization.safe_globals(allowed):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FormatError(_refusal(path, error)) from error
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        AssertionError,
        zipfile.BadZipFile,
    ) as error:
        raise FormatError(
            f"{path} is not a fairseq checkpoint, or is damaged or was not "
            f"downloaded to its end: {one_line(error)}"
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise FormatError(
            f"{path} is not a fairseq checkpoint: it has no 'model' entry"
        )
    return state


def global_names(path: Path) -> set[str]:
    """Return the names of classes and functions that a checkpoint asks for.

    Reads opcodes only; nothing is unpickled.

    Arguments
    ---------
    path : pathlib.Path
        A file written by torch.save.

    Returns
    -------
    set of str
        As "package.module.Name".
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            inner = [n for n in archive.namelist() if n.endswith("data.pkl")]
            if not inner:
                raise FormatError(f"{path} is not a file of torch.save")
            with archive.open(inner[0]) as stream:
                return set(_names(stream))
    with open(path, "rb") as stream:
        # The older format is a row of pickles (magic number, version, system
        # information, the object, the storage keys), then raw storages.
        found: set[str] = set()
        for _ in range(5):
            found.update(_names(stream))
        return found


def plain(value: Any) -> Any:
    """Turn settings, in whatever way they were pickled, into plain values.

    Arguments
    ---------
    value : object
        A part of a checkpoint.

    Returns
    -------
    object
        Dicts, lists and scalars. An OmegaConf entry that refers to another
        ("${task.x}") or is unset ("???") becomes None.

    Example
    -------
    >>> namespace = Inert()
    >>> namespace.__setstate__({"encoder_layers": 12, "w2v_path": "???"})
    >>> plain(namespace)
    {'encoder_layers': 12, 'w2v_path': None}
    """
    if isinstance(value, Inert):
        state = value.inert_state
        if isinstance(state, tuple) and state:
            state = state[0]
        if isinstance(state, dict):
            for inside in ("_content", "_val"):
                if inside in state:
                    return plain(state[inside])
            return plain(state)
        arguments = value.inert_arguments
        return plain(arguments[0]) if len(arguments) == 1 else None
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, str) and (value == "???" or value.startswith("${")):
        return None
    return value


def _names(stream: Any) -> Iterable[str]:
    """Yield the names of one pickle, and leave the stream behind it."""
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "GLOBAL":
            module, name = argument.split(" ", maxsplit=1)
            # Written so by Python 3 for protocol 2.
            module = "builtins" if module == "__builtin__" else module
            yield f"{module}.{name}"


def _is_known(name: str) -> bool:
    """Return whether a name gets a stand-in."""
    return name in INERT_NAMES or name.split(".")[0] in INERT_PACKAGES


def _refusal(path: Path, error: Exception) -> str:
    """Say which name was refused."""
    match = re.search(r"GLOBAL (\S+)", str(error))
    wanted = f"asks for {match.group(1)}" if match else one_line(error)
    return (
        f"{path} is not loaded: beside weights and settings it {wanted}, "
        f"which no fairseq checkpoint needs and which could run code here"
    )
