"""A manifest as a SpeechBrain data set: audio or features, tokens, text.

Wires the other files together and does no work of its own.
"""

import os
from collections.abc import Callable

import speechbrain as sb
import torch
from speechbrain.dataio.dataset import DynamicItemDataset

from s3router.data.audio import read_audio
from s3router.data.manifest import Utterance, read_manifest
from s3router.data.tokens import Tokens, report_unknown
from s3router.errors import DataError, one_of

SORTINGS = ("ascending", "descending", "none")


def speech_dataset(
    csv_path: str | os.PathLike,
    tokens: Tokens,
    sample_rate: int = 16000,
    features: Callable[[str], torch.Tensor] | None = None,
    audio: Callable[[str], torch.Tensor] | None = None,
    sorting: str = "ascending",
) -> DynamicItemDataset:
    """Return the data set of a manifest.

    Arguments
    ---------
    csv_path : str or path
        The manifest.
    tokens : Tokens
        Characters that it lacks are logged in one line and become unknown.
    sample_rate : int
        Samples per second of `sig`.
    features : callable, optional
        Utterance ID to its (frames, channels) front-end output; given, the
        items hold `features` and no audio is read.
    audio : callable, optional
        Utterance ID to its (samples,) audio; None: that of the manifest.
    sorting : str
        "ascending" or "descending" by duration, or "none".

    Returns
    -------
    speechbrain.dataio.dataset.DynamicItemDataset
        Items with `id`; `sig` (samples,) float32, or `features`; `tokens`
        (length,) int64; and `wrd`, the transcript to score against. Rows of
        the manifest are in `.data`, `duration` among them.

    Raises
    ------
    DataError
        If a transcript is empty.
    """
    rows = _sorted(read_manifest(csv_path), sorting)
    for row in rows:
        if not row["wrd"].strip():
            raise DataError(f"{csv_path}: {row['ID']} has an empty transcript")
    report_unknown(tokens, (row["wrd"] for row in rows), str(csv_path))

    @sb.utils.data_pipeline.takes("wrd")
    @sb.utils.data_pipeline.provides("tokens")
    def token_pipeline(wrd: str) -> torch.Tensor:
        return torch.tensor(tokens.encode(wrd), dtype=torch.int64)

    @sb.utils.data_pipeline.takes("id", "wav")
    @sb.utils.data_pipeline.provides("sig")
    def audio_pipeline(uid: str, wav: str) -> torch.Tensor:
        return read_audio(wav, sample_rate) if audio is None else audio(uid)

    @sb.utils.data_pipeline.takes("id")
    @sb.utils.data_pipeline.provides("features")
    def feature_pipeline(uid: str) -> torch.Tensor:
        return features(uid)

    speech = audio_pipeline if features is None else feature_pipeline
    data = {
        row["ID"]: {k: v for k, v in row.items() if k != "ID"} for row in rows
    }
    name = "sig" if features is None else "features"
    return DynamicItemDataset(
        data,
        dynamic_items=[speech, token_pipeline],
        output_keys=["id", name, "tokens", "wrd"],
    )


def _sorted(rows: list[Utterance], sorting: str) -> list[Utterance]:
    one_of(sorting, SORTINGS, "sorting")
    if sorting == "none":
        return rows
    # Sorting is stable: clips of one length keep the order of the file.
    return sorted(
        rows, key=lambda r: r["duration"], reverse=sorting == "descending"
    )
