"""Reading an encoder folder in the Hugging Face format.

A folder is read by our own code rather than by `from_pretrained`: it gives
one error line instead of a report, float32 whatever the file holds, no
pickles that could run code, and the same path as fairseq checkpoints.
"""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from s3router.errors import FormatError, NotFoundError
from s3router.formats.files import read_json
from s3router.models.families import default_normalize, family_of
from s3router.models.weight_files import one_line, read_folder_weights

Checkpoint = tuple[PretrainedConfig, dict[str, Tensor], bool]


def read_hugging_face(folder: Path, where: str | None = None) -> Checkpoint:
    """Read an encoder folder: config, weights, input normalisation.

    Arguments
    ---------
    folder : pathlib.Path
        With config.json, weights, and perhaps preprocessor_config.json.
    where : str, optional
        What the user calls it, for errors; the folder if left out.

    Returns
    -------
    config : transformers.PretrainedConfig
        Of a known family.
    state : dict of str to torch.Tensor
        Weights as in the file, heads included.
    normalize : bool
        `do_normalize` of preprocessor_config.json; if there is none, the
        family's default.

    Raises
    ------
    NotFoundError
        If config.json or the weights are missing.
    FormatError
        If it is not a known encoder or a file is damaged.
    """
    where = where or str(folder)
    settings = folder / "config.json"
    if not settings.is_file():
        raise NotFoundError(
            f"{where} is not an encoder folder: it has no config.json"
        )
    values = read_json(settings)
    if not isinstance(values, dict):
        raise FormatError(f"{settings} is not a JSON object")
    config = config_from(values, where)
    state = read_folder_weights(folder)
    return config, state, _normalize(folder, config)


def config_from(values: dict[str, Any], where: str) -> PretrainedConfig:
    """Build the config object of a known family.

    Arguments
    ---------
    values : dict
        Content of config.json.
    where : str
        For errors.

    Returns
    -------
    transformers.PretrainedConfig
        Of the family's class.

    Raises
    ------
    FormatError
        If the family is unknown or the values do not make a config.
    """
    values = dict(values)
    family = family_of(values.pop("model_type", None), where)
    # Of the machine that wrote it, not of the model: we ask for float32.
    for key in ("torch_dtype", "dtype"):
        values.pop(key, None)
    try:
        return AutoConfig.for_model(family.name, **values)
    except (TypeError, ValueError, KeyError, StrictDataclassError) as error:
        raise FormatError(
            f"the config.json of {where} does not describe a {family.name} "
            f"model: {one_line(error.__cause__ or error)}"
        ) from error


def _normalize(folder: Path, config: PretrainedConfig) -> bool:
    """Read do_normalize, or fall back on the family's default."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        values = read_json(path)
        if isinstance(values, dict) and "do_normalize" in values:
            return bool(values["do_normalize"])
    return default_normalize(config)
