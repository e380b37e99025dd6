"""Pre-training's pool: who speaks what, features of it, and its units.

Every function leaves files behind and skips what is there.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from speechbrain.utils.autocast import AMPConfig
from speechbrain.utils.logger import get_logger
from transformers import HubertModel, PreTrainedModel

from s3router.brains.main_process import on_main
from s3router.brains.pretrain_audio import (
    FasterCopies,
    cache_features,
    held_out,
)
from s3router.brains.pretrain_checks import (
    SEEDS,
    check_amount,
    check_frames,
    check_record,
)
from s3router.brains.pretrain_decode import decode_pool
from s3router.brains.pretrain_layers import (
    SpokenLayers,
    layer_information,
    spoken_phones,
)
from s3router.brains.pretrain_phone_units import (
    check_known,
    keep_known_phones,
    make_phone_units,
)
from s3router.brains.pretrain_units import (
    LayerFrames,
    MFCCFrames,
    make_units,
    units_exist,
    units_record,
)
from s3router.data.crops import Version, clip_probabilities
from s3router.data.manifest import read_manifest
from s3router.data.ragged import Ragged
from s3router.errors import MismatchError
from s3router.formats.files import write_json
from s3router.models.frame_grid import FrameGrid
from s3router.models.pretrain_head import UnitPredictor

logger = get_logger(__name__)


class Pool:
    """Decoded audio: who speaks what, and how likely each clip is drawn.

    Arguments
    ---------
    hparams : dict
        With `work_folder`, which has `pool.csv`, `encoder_config`,
        `held_out_share`, `language_alpha` and what `check_amount` needs.

    Raises
    ------
    DataError
        If there is too little audio, or none with known phones where units
        of phones are wanted.
    MismatchError
        If the audio was decoded for an encoder with shorter frames.
    """

    def __init__(self, hparams: Mapping) -> None:
        work = Path(hparams["work_folder"])
        self.grid = FrameGrid.of(hparams["encoder_config"])
        rows = read_manifest(work / "pool.csv")
        decoding = [rows, work / "audio.i16", self.grid.window]
        on_main(decode_pool, *decoding)
        self.audio, items = decode_pool(*decoding)
        if self.audio.lengths.min() < self.grid.window:
            raise MismatchError(
                f"{work / 'audio.i16'} was decoded for an encoder with shorter "
                f"frames: delete {work}/audio.* or choose another "
                "--output_folder"
            )
        wavs = {row["ID"]: row["wav"] for row in rows}
        self.wavs = [wavs[item["id"]] for item in items]
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
        check_amount(self.frames(), hparams)
        if hparams["objective"] == "hubert":
            check_known(self.wavs, valid, hparams["iterations"])

    def frames(self) -> np.ndarray:
        """Return (items,) how many whole frames each clip has, int64."""
        return np.array([self.grid.frames(int(n)) for n in self.audio.lengths])


def features_of(
    encoder: PreTrainedModel, pool: Pool, hparams: Mapping
) -> list[Version]:
    """Return the cached output of the frozen front end.

    Arguments
    ---------
    encoder : transformers.PreTrainedModel
        After `warm_up`.
    pool : Pool
        Audio.
    hparams : mapping
        With `degraded_versions`.

    Returns
    -------
    list of Version
        Of the clean clips first, then of each degraded version.
    """
    versions = []
    for number in range(hparams["degraded_versions"] + 1):
        seed = None if number == 0 else hparams["seed"] + number
        shown = None if seed is None else FasterCopies(pool.grid, seed)
        path = Path(hparams["work_folder"]) / f"features_{number}.f16"
        front_end = encoder.feature_extractor
        on_main(cache_features, front_end, pool.audio, path, pool.grid, seed)
        versions.append(Version(Ragged(path, "float16"), shown))
    return versions


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
        With `iterations`, and `precision` as it is used.

    Returns
    -------
    Ragged
        A unit for each frame of each clip.

    Raises
    ------
    MismatchError
        If units are there that other settings made.
    """
    iteration = hparams["iterations"][number - 1]
    path = Path(hparams["work_folder"]) / f"units_{number}.u16"
    made_with = {
        "units": iteration.get("units"),
        "of": iteration["of"],
        "window": pool.grid.window,
        "hop": pool.grid.hop,
    }
    if iteration["of"] not in SEEDS:
        made_with["phone_directions"] = hparams["phone_directions"]

    if iteration.get("keep_phones"):
        made_with["keep_phones"] = True
    spoken = [pool.wavs, pool.audio.lengths, clean.lengths, pool.grid]

    def find(target: Path) -> None:
        if units_exist(target):
            return
        if iteration["of"] == "mfcc":
            frames = MFCCFrames(pool.audio, pool.speakers, pool.grid)
        else:
            frames = _layer_frames(
                number, encoder, previous, pool, clean, hparams
            )
        make_units(
            frames,
            target,
            iteration["units"],
            hparams["unit_fit_frames"],
            hparams["seed"],
            made_with,
        )

    on_main(_make, path, iteration, spoken, find, made_with)
    remove = f"{path}* and iteration_{number} beside it, and what came later"
    check_record(units_record(path), made_with, remove)
    units = Ragged(path, "uint16")
    of_audio = iteration["of"] == "mfcc"
    expected = pool.frames() if of_audio else clean.lengths
    check_frames(path, units.lengths, expected, remove)
    return units


def _make(
    path: Path,
    iteration: Mapping,
    spoken: list,
    find: Callable[[Path], None],
    made_with: Mapping,
) -> None:
    """Write units that are not there yet: phones, found ones, or both."""
    if units_exist(path):
        return
    if iteration["of"] == "phones":
        make_phone_units(*spoken, path, made_with)
    elif not iteration.get("keep_phones"):
        find(path)
    else:
        found, known = path.with_suffix(".found"), path.with_suffix(".known")
        make_phone_units(*spoken, known)
        find(found)
        keep_known_phones(found, known, path, made_with)


def _layer_frames(
    number: int,
    encoder: HubertModel,
    model: UnitPredictor,
    pool: Pool,
    clean: Ragged,
    hparams: Mapping,
) -> LayerFrames:
    """Return frames of the layer that was named, or of the best one."""
    kind = AMPConfig.from_name(hparams["precision"]).dtype
    layer = hparams["iterations"][number - 1]["of"]
    wanted = hparams["phone_directions"]
    if layer != "auto" and not wanted:
        return LayerFrames(model, clean, layer, kind)
    seed = hparams["seed"]
    blocks = len(model.transformer.layers)
    frames = LayerFrames(model, clean, blocks, kind)
    known = SpokenLayers(
        frames,
        encoder.feature_extractor,
        spoken_phones(hparams["known_sentences"], seed, pool.grid),
    )
    if layer == "auto":
        information = layer_information(frames, known, wanted, seed)
        # Not the input: what is frozen can be known from the first day on.
        layer = 1 + int(np.argmax(information[1:]))
        logger.info("PNMI of the layers %s: %d", information, layer)
        write_json(
            Path(hparams["output_folder"], "curves", f"layers_{number}.json"),
            {"phone_information": information, "chosen": layer},
        )
    directions = known.directions(layer, wanted)
    return LayerFrames(model, clean, layer, kind, directions)
