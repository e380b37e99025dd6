"""The table of encoder families: what differs between them, in one place.

All families are the wav2vec 2.0 architecture with small changes, and
transformers gives them the same module names, so one loader and one forward
serve all. XLSR-53, XLS-R and MMS are wav2vec2 with other weights.
This file must not load weights or build a model.
"""

from dataclasses import dataclass
from typing import Any

from s3router.errors import FormatError


@dataclass(frozen=True)
class Family:
    """What is particular about one family of encoders.

    Arguments
    ---------
    name : str
        `model_type` in the Hugging Face config.json.
    prefix : str
        What transformers puts before the encoder's weight names in a model
        with a head ("wav2vec2." in a Wav2Vec2ForCTC folder).
    attention : str
        Attention implementation asked of transformers. WavLM has none but
        "eager"; `s3router.models.wavlm` gives it a fused one.
    """

    name: str
    prefix: str
    attention: str = "sdpa"


FAMILIES = {
    family.name: family
    for family in (
        Family("wav2vec2", "wav2vec2"),
        Family("hubert", "hubert"),
        Family("wavlm", "wavlm", attention="eager"),
        Family("data2vec-audio", "data2vec_audio"),
        Family("unispeech-sat", "unispeech_sat"),
    )
}


def family_of(model_type: str | None, where: str) -> Family:
    """Return the family of a config's `model_type`.

    Arguments
    ---------
    model_type : str or None
        As in config.json.
    where : str
        The folder or name that was asked for; named in the error.

    Returns
    -------
    Family
        The row of the table.

    Raises
    ------
    FormatError
        If the model is not a speech encoder of a known family.

    Example
    -------
    >>> family_of("hubert", "here").prefix
    'hubert'
    """
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    raise FormatError(
        f"{where} is not a speech encoder that s3router knows: its config.json "
        f"has model_type {model_type!r}; known: {', '.join(FAMILIES)}"
    )


def norm_of_front_end(config: Any) -> str:
    """Return "group" or "layer": how the conv front end normalises.

    Arguments
    ---------
    config : transformers.PretrainedConfig
        Of any family. data2vec-audio has no such entry: it is always "layer".

    Returns
    -------
    str
        "group" (base models: one GroupNorm over time after the first conv) or
        "layer" (LayerNorm over channels after every conv).
    """
    return getattr(config, "feat_extract_norm", None) or "layer"


def has_stable_layer_norm(config: Any) -> bool:
    """Return whether the blocks normalise before attention (pre-norm).

    Arguments
    ---------
    config : transformers.PretrainedConfig
        Of any family. data2vec-audio has no such entry: it is post-norm.

    Returns
    -------
    bool
        True for the large models, XLSR-53 and XLS-R.
    """
    return bool(getattr(config, "do_stable_layer_norm", False))


def default_normalize(config: Any) -> bool:
    """Return whether waveforms are normalised when no file says so.

    fairseq's recipes set `task.normalize: true` with `extractor_mode:
    layer_norm` (wav2vec2 large, XLSR, XLS-R, HuBERT large, data2vec) and
    leave it off with the group norm of the base models. Hugging Face folders
    of base models mostly say `do_normalize: true` all the same; there it
    matters for very quiet clips only, because a GroupNorm right behind a first
    conv without bias takes out scale and offset by itself, up to its epsilon.

    Arguments
    ---------
    config : transformers.PretrainedConfig
        Of any family.

    Returns
    -------
    bool
        True if zero mean and unit variance are expected.
    """
    return norm_of_front_end(config) == "layer"
