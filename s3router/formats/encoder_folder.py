"""What an encoder folder holds, read without torch; for people.

To load an encoder is the work of `s3router.models`; this only looks. The
fingerprint is computed from the file, where numpy can read its numbers.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from s3router.errors import FormatError, NotFoundError
from s3router.formats.files import folder_sizes, read_json
from s3router.formats.fingerprint import fingerprint

WEIGHTS = "model.safetensors"

# The linear layers of a transformer block, by the names of all known families
# (with the family's prefix, if the folder holds a model with a head).
_MASKABLE = re.compile(
    r"(?:[a-z0-9_]+\.)?(encoder\.layers\.\d+\."
    r"(?:attention\.(?:q|k|v|out)_proj"
    r"|feed_forward\.(?:intermediate|output)_dense))\.weight"
)


def describe_encoder(folder: str | os.PathLike) -> dict[str, Any]:
    """Describe an encoder folder in the Hugging Face format.

    Arguments
    ---------
    folder : str or path
        With config.json and, for weights and fingerprint, safetensors.

    Returns
    -------
    dict
        kind "encoder", family, sizes, weights, maskable weights, dtypes,
        normalize (None if the folder does not say), fingerprint (None if
        there is no safetensors file, or numpy cannot read its numbers).

    Raises
    ------
    NotFoundError
        If a file that the folder names is missing.
    FormatError
        If a file is truncated or altered.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    tensors = [t for path in _files(folder) for t in _header(path)]
    preprocessor = folder / "preprocessor_config.json"
    normalize = None
    if preprocessor.is_file():
        normalize = read_json(preprocessor).get("do_normalize")
    maskable = [t for t in tensors if _MASKABLE.fullmatch(t[0])]
    return {
        "kind": "encoder",
        "path": str(folder),
        "family": config.get("model_type"),
        "layers": config.get("num_hidden_layers"),
        "hidden_size": config.get("hidden_size"),
        "heads": config.get("num_attention_heads"),
        "feed_forward_size": config.get("intermediate_size"),
        "normalize": normalize,
        "weights": sum(int(np.prod(shape)) for _, shape, _ in tensors),
        "maskable_weights": sum(int(np.prod(s)) for _, s, _ in maskable),
        "maskable_tensors": len(maskable),
        "dtypes": sorted({dtype for _, _, dtype in tensors}),
        "fingerprint": encoder_fingerprint(folder),
        "bytes": sum(folder_sizes(folder).values()),
        "versions": {"transformers": config.get("transformers_version")},
    }


def encoder_fingerprint(folder: str | os.PathLike) -> str | None:
    """Return the fingerprint of an encoder folder, as `SSLEncoder` has it.

    Arguments
    ---------
    folder : str or path
        With model.safetensors, whole or in shards.

    Returns
    -------
    str or None
        "sha256:..."; None if there are no such files, no maskable weights,
        or numbers that numpy has not (bfloat16).
    """
    weights = {}
    for path in _files(Path(folder)):
        with _opened(path) as file:
            for name in file.keys():
                if match := _MASKABLE.fullmatch(name):
                    try:
                        weights[match[1]] = file.get_tensor(name)
                    except TypeError:
                        return None
    if not weights or any(w.dtype.kind != "f" for w in weights.values()):
        return None
    return fingerprint(weights)


def _files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder, shards in order."""
    index = folder / f"{WEIGHTS}.index.json"
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not index.is_file():
        return []
    names = sorted(set(read_json(index).get("weight_map", {}).values()))
    for name in names:
        if not (folder / name).is_file():
            raise NotFoundError(f"{name} is missing in {folder}")
    return [folder / name for name in names]


def _header(path: Path) -> list[tuple[str, tuple[int, ...], str]]:
    """Return (name, shape, dtype) of each tensor, without reading it."""
    with _opened(path) as file:
        slices = [(name, file.get_slice(name)) for name in file.keys()]
        return [(n, tuple(s.get_shape()), s.get_dtype()) for n, s in slices]


def _opened(path: Path) -> Any:
    """Open a safetensors file, or say in one line what is wrong with it."""
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise FormatError(
            f"{path} is not a readable safetensors file ({error}): it is "
            f"truncated or altered"
        ) from error
