"""Pre-training's pool: who speaks what, features of it, and its units.

Every function leaves files behind and skips what is there.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.logger import get_logger
from transformers import HubertModel

from s3router.brains.pretrain_audio import (
    cache_features,
    decode_pool,
    held_out,
)
from s3router.brains.pretrain_layers import layer_information, spoken_phones
from s3router.brains.pretrain_units import (
    LayerFrames,
    MFCCFrames,
    make_units,
)
from s3router.data.crops import clip_probabilities
from s3router.data.manifest import read_manifest
from s3router.data.ragged import Ragged
from s3router.errors import SettingError
from s3router.formats.files import write_json
from s3router.models.hubert_folder import bfloat16_is_fast
from s3router.models.pretrain_head import UnitPredictor

logger = get_logger(__name__)


class Pool:
    """Decoded audio: who speaks what, and how likely each clip is drawn.

    Arguments
    ---------
    hparams : dict
        With `work_folder`, which has `pool.csv`, `held_out_share` and
        `language_alpha`.
    """

    def __init__(self, hparams: Mapping) -> None:
        work = Path(hparams["work_folder"])
        rows = read_manifest(work / "pool.csv")
        run_on_main(decode_pool, args=[rows, work / "audio.i16"])
        self.audio, items = decode_pool(rows, work / "audio.i16")
        self.speakers = [item["speaker"] for item in items]
        lengths = self.audio.lengths.astype(float)
        valid = held_out(items, hparams["held_out_share"])
        drawn = clip_probabilities(
            np.where(valid, 1e-9, lengths),
            [item["language"] for item in items],
            hparams["language_alpha"],
        )
        self.train = np.where(valid, 0.0, drawn)
        self.valid = np.where(valid, lengths, 0.0)


def features_of(
    encoder: HubertModel, pool: Pool, hparams: Mapping
) -> list[Ragged]:
    """Return the cached output of the frozen front end.

    Arguments
    ---------
    encoder : HubertModel
        After `warm_up`.
    pool : Pool
        Audio.
    hparams : mapping
        With `degraded_versions`.

    Returns
    -------
    list of Ragged
        Of the clean clips first, then of each degraded version.
    """
    versions = []
    for number in range(hparams["degraded_versions"] + 1):
        seed = None if number == 0 else hparams["seed"] + number
        path = Path(hparams["work_folder"]) / f"features_{number}.f16"
        front_end = encoder.feature_extractor
        run_on_main(cache_features, args=[front_end, pool.audio, path, seed])
        versions.append(Ragged(path, "float16"))
    return versions


def check_iterations(hparams: Mapping) -> None:
    """Refuse iterations that could not run, before hours are spent.

    Arguments
    ---------
    hparams : mapping
        With `iterations` and `encoder_config`.

    Raises
    ------
    SettingError
        If there is none, the first is not of MFCCs, a later one asks for a
        layer that there is not, or has too few units or epochs.
    """
    iterations = hparams["iterations"]
    layers = range(hparams["encoder_config"].num_hidden_layers + 1)
    if not iterations or iterations[0].get("of") != "mfcc":
        raise SettingError("the first iteration's units must be of: mfcc")
    for number, iteration in enumerate(iterations, start=1):
        of = iteration.get("of")
        if of not in ("mfcc", "auto", *layers):
            raise SettingError(
                f"iteration {number}: units of {of!r}; it must be mfcc, auto "
                f"or a layer, 0 to {layers[-1]}"
            )
        if iteration.get("units", 0) < 2 or iteration.get("epochs", 0) < 1:
            raise SettingError(
                f"iteration {number} needs 2 or more units and 1 or more "
                f"epochs: {dict(iteration)}"
            )


def units_of(
    number: int,
    encoder: HubertModel,
    previous: UnitPredictor | None,
    pool: Pool,
    clean: Ragged,
    hparams: Mapping,
) -> Ragged:
    """Return the targets of an iteration.

    Arguments
    ---------
    number : int
        Of the iteration, from 1.
    encoder : HubertModel
        For its front end.
    previous : UnitPredictor or None
        The network so far; None in the first iteration.
    pool : Pool
        Audio.
    clean : Ragged
        Features of the clean clips.
    hparams : mapping
        With `iterations`.

    Returns
    -------
    Ragged
        A unit for each frame of each clip.
    """
    iteration = hparams["iterations"][number - 1]
    path = Path(hparams["work_folder"]) / f"units_{number}.u16"
    if Ragged.exists(path):
        return Ragged(path, "uint16")
    layer = iteration["of"]
    if layer == "mfcc":
        frames = MFCCFrames(pool.audio, pool.speakers)
    else:
        if layer == "auto":
            layer = _best_layer(number, encoder, previous, clean, hparams)
        kind = torch.bfloat16 if bfloat16_is_fast() else torch.float32
        frames = LayerFrames(previous, clean, layer, kind)
    return make_units(
        frames,
        path,
        iteration["units"],
        hparams["unit_fit_frames"],
        hparams["seed"],
    )


def _best_layer(
    number: int,
    encoder: HubertModel,
    model: UnitPredictor,
    clean: Ragged,
    hparams: Mapping,
) -> int:
    seed = hparams["seed"]
    information = layer_information(
        model,
        encoder.feature_extractor,
        clean,
        spoken_phones(hparams["layer_choice_sentences"], seed),
        seed,
    )
    layer = int(np.argmax(information))
    logger.info("PNMI of the layers %s: %d", information, layer)
    write_json(
        Path(hparams["output_folder"], "curves", f"layers_{number}.json"),
        {"phone_information": information, "chosen": layer},
    )
    return layer
