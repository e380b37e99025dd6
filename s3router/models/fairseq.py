"""Reading the original fairseq checkpoints of wav2vec2, HuBERT and data2vec.

transformers 5 dropped its converters. Here a `.pt` is opened safely
(fairseq_pickle), its architecture is worked out (fairseq_config), and its
weights get their Hugging Face names (fairseq_names), so that it runs as the
same model as a Hugging Face folder. XLSR-53, XLS-R and MMS are wav2vec2.
"""

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PretrainedConfig

from s3router.errors import FormatError
from s3router.models.fairseq_config import (
    SAMPLE_RATE,
    build_config,
    model_settings,
    task_settings,
)
from s3router.models.fairseq_names import rename, unwrap
from s3router.models.fairseq_pickle import load_checkpoint, plain
from s3router.models.families import default_normalize


def read_fairseq(
    path: Path, where: str | None = None
) -> tuple[PretrainedConfig, dict[str, Tensor], bool]:
    """Read a fairseq checkpoint.

    Arguments
    ---------
    path : pathlib.Path
        A `.pt` file, pre-trained or fine-tuned.
    where : str, optional
        What the user calls it, for errors; the path if left out.

    Returns
    -------
    config : transformers.PretrainedConfig
        Of wav2vec2, HuBERT or data2vec-audio.
    state : dict of str to torch.Tensor
        Weights by Hugging Face names, without heads.
    normalize : bool
        `task.normalize` of the checkpoint; if it has no settings, the
        family's default.

    Raises
    ------
    FormatError
        If the file is damaged, is not such a checkpoint, or holds anything
        that could run code.
    """
    where = where or str(path)
    checkpoint = load_checkpoint(path)
    settings = {key: plain(checkpoint.get(key)) for key in ("cfg", "args")}
    settings = {k: v for k, v in settings.items() if isinstance(v, dict)}
    state = unwrap(checkpoint["model"])
    config = build_config(state, _named(settings), where)
    state = rename(state, where)
    task = task_settings(settings)
    rate = task.get("sample_rate")
    if rate is not None and int(rate) != SAMPLE_RATE:
        raise FormatError(
            f"{where} was trained at {rate} Hz; s3router's encoders take "
            f"{SAMPLE_RATE} Hz"
        )
    normalize = task.get("normalize")
    if normalize is None:
        normalize = default_normalize(config)
    return config, state, bool(normalize)


def _named(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the encoder's settings with a family name where one is known.

    The settings inside a fine-tuned checkpoint may lack their own name; the
    outer model's (hubert_ctc) tells it then.
    """
    inner = dict(model_settings(settings))
    outer = settings.get("cfg") or settings.get("args") or {}
    outer = outer.get("model") or outer
    name = inner.get("_name") or inner.get("arch")
    inner["_name"] = name or outer.get("_name") or outer.get("arch")
    return inner
