"""Where an encoder's files are: embedded, a local path, or a hub to ask.

Only finds and downloads; reading is done elsewhere. Nothing here waits long:
a hub that cannot be reached gives an error that says what else to do.
"""

import logging
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
)

from s3router.errors import NotFoundError
from s3router.models.weight_files import one_line

TINY = "tiny"
ASSETS = Path(__file__).parents[1] / "assets"

# Seconds for the hub's first answer. A name that does not resolve fails at
# once; a network that swallows packets fails after this.
HUB_TIMEOUT = 10

_ALTERNATIVES = (
    "Use --encoder=tiny for the embedded one, or --encoder=FOLDER with a "
    "folder that has config.json and model.safetensors, copied from a machine "
    "that reaches the hub"
)


def locate(source: str, cache_folder: str | None = None) -> Path:
    """Return the local folder or file of an encoder; download if needed.

    Arguments
    ---------
    source : str
        "tiny", a folder, a fairseq `.pt` file, or a name on the hub.
    cache_folder : str, optional
        Where downloads are kept.

    Returns
    -------
    pathlib.Path
        A folder in the Hugging Face format, or a fairseq file.

    Raises
    ------
    NotFoundError
        If nothing is there.

    Example
    -------
    >>> locate("./no/such/folder")
    Traceback (most recent call last):
    ...
    s3router.errors.NotFoundError: encoder './no/such/folder': there is no \
such file or folder. Give a folder with config.json and model.safetensors, a \
fairseq .pt file, a hub name, or --encoder=tiny
    """
    source = str(source)
    if source == TINY:
        folder = ASSETS / TINY
        if not (folder / "config.json").is_file():
            raise NotFoundError(
                f"the embedded encoder is missing from this installation "
                f"({folder}): install s3router again"
            )
        return folder
    path = Path(source).expanduser()
    if path.exists():
        return path
    looks_local = path.is_absolute() or source.startswith((".", "~"))
    if looks_local or path.suffix in (".pt", ".pth") or len(path.parts) > 2:
        raise NotFoundError(
            f"encoder {source!r}: there is no such file or folder. Give a "
            f"folder with config.json and model.safetensors, a fairseq .pt "
            f"file, a hub name, or --encoder=tiny"
        )
    return download(source, cache_folder)


def download(name: str, cache_folder: str | None = None) -> Path:
    """Get a model from its hub, or from the cache if it was got before.

    Arguments
    ---------
    name : str
        As on the hub, "facebook/wav2vec2-large-xlsr-53".
    cache_folder : str, optional
        Where to keep it; huggingface_hub's default if left out.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    NotFoundError
        If there is no such model, or the hub cannot be reached.
    """
    settings = ["config.json", "preprocessor_config.json", "*.index.json"]
    tensors = ["model.safetensors", "model-*.safetensors"]
    folder = _snapshot(name, settings + tensors, cache_folder)
    if not any(folder.glob("model*.safetensors")):
        # Many of the older repositories have the pickle only; it is read as
        # data (see weight_files).
        pickles = ["pytorch_model*.bin"]
        folder = _snapshot(name, settings + pickles, cache_folder)
    return folder


def _snapshot(name: str, patterns: list[str], cache: str | None) -> Path:
    """Call the hub and turn its many errors into one line each."""
    # Its retry warnings would stand between the user and the one error line.
    quiet = logging.getLogger("huggingface_hub")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        folder = snapshot_download(
            name,
            allow_patterns=patterns,
            cache_dir=cache,
            etag_timeout=HUB_TIMEOUT,
        )
    except HFValidationError as error:
        reason, cause = "and no name as hubs have them (owner/model)", error
    except GatedRepoError as error:
        reason, cause = "and its owners ask for a login on the hub", error
    except RepositoryNotFoundError as error:
        reason, cause = "and no public model on the hub", error
    except (OSError, ValueError, RuntimeError) as error:
        reason = "nor in the cache, and the hub cannot be reached: "
        reason += _root(error)
        cause = error
    else:
        return Path(folder)
    finally:
        quiet.setLevel(level)
    raise NotFoundError(
        f"encoder {name!r} is no folder here, {reason}. {_ALTERNATIVES}"
    ) from cause


def _root(error: BaseException) -> str:
    """Return the innermost cause in one line."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return one_line(error, limit=120)
