"""What would stop pre-training later is said before hours are spent.

Settings, files of an earlier run that belong to another encoder, checkpoints
of another shape. Nothing is changed or deleted here: the line says what to.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from speechbrain.utils.checkpoints import Checkpointer
from torch import nn

from s3router.errors import (
    DataError,
    MismatchError,
    MissingDependencyError,
    SettingError,
    one_of,
)
from s3router.formats.files import read_json
from s3router.models.filterbank import SHORTEST_KERNEL, check_channels
from s3router.models.frame_grid import FrameGrid
from s3router.models.units import spectra_per_frame

OBJECTIVES = ("hubert", "wav2vec2")
CONTRASTIVE = {
    "epochs": 1,
    "codebooks": 1,
    "codes": 2,
    "width": 1,
    "distractors": 1,
}
#: Units are kept in 16 bits, of which one value says "not known".
MOST_UNITS = (1 << 16) - 1
#: Targets that need no network yet.
SEEDS = ("mfcc", "phones")


def check_settings(hparams: Mapping) -> None:
    """Refuse settings that could not run.

    Arguments
    ---------
    hparams : mapping
        Of the recipe.

    Raises
    ------
    SettingError
        Naming the setting.
    MissingDependencyError
        If units need synthetic speech, which is not installed.
    """
    one_of(hparams["objective"], OBJECTIVES, "objective")
    config = hparams["encoder_config"]
    grid = FrameGrid.of(config)
    spectra_per_frame(grid)
    if config.conv_kernel[0] >= SHORTEST_KERNEL:
        check_channels(config.conv_dim[0])
    for name in ("lr", "warmup_lr", "batch_seconds", "span_seconds"):
        if not hparams[name] > 0:
            raise SettingError(f"{name} must be above 0, not {hparams[name]}")
    for name in ("degraded_share", "span_share", "held_out_share"):
        if not 0 <= hparams[name] <= 1:
            raise SettingError(f"{name} is a share, not {hparams[name]}")
    frame = 1 / grid.frames_per_second
    for name in ("crop_seconds", "batch_seconds"):
        if hparams[name] < frame:
            raise SettingError(
                f"{name} is {hparams[name]}, less than a frame ({frame:g} s)"
            )
    if hparams["degraded_versions"] < 0:
        raise SettingError("degraded_versions must be 0 or more")
    for hours in hparams["snapshot_hours"]:
        if not isinstance(hours, int | float) or hours < 0:
            raise SettingError(f"snapshot_hours: {hours!r} is no time in hours")
    if hparams["objective"] == "hubert":
        check_iterations(hparams)
        _check_guidance(hparams)
    else:
        check_contrastive(hparams["contrastive"])


def check_iterations(hparams: Mapping) -> None:
    """Refuse iterations of HuBERT that could not run.

    Arguments
    ---------
    hparams : mapping
        With `iterations` and `encoder_config`.

    Raises
    ------
    SettingError
        If there is none, the first is not of MFCCs or phones, one asks for a
        layer that there is not, or has too few units or epochs.
    """
    iterations = hparams["iterations"]
    layers = range(hparams["encoder_config"].num_hidden_layers + 1)
    if not iterations or iterations[0].get("of") not in SEEDS:
        raise SettingError(
            "the first iteration's units must be of: mfcc, or of: phones"
        )
    for number, iteration in enumerate(iterations, start=1):
        of = iteration.get("of")
        if of not in (*SEEDS, "auto", *layers):
            raise SettingError(
                f"iteration {number}: units of {of!r}; it must be mfcc, "
                f"phones, auto or a layer, 0 to {layers[-1]}"
            )
        units = 2 if of == "phones" else iteration.get("units", 0)
        if units < 2 or iteration.get("epochs", 0) < 1:
            raise SettingError(
                f"iteration {number} needs 2 or more units and 1 or more "
                f"epochs: {dict(iteration)}"
            )
        if iteration.get("keep_phones") and of in SEEDS:
            raise SettingError(
                f"iteration {number}: keep_phones goes with units of a layer "
                f"or auto, not with of: {of}"
            )
        if units > MOST_UNITS:
            raise SettingError(
                f"iteration {number}: {units} units are too "
                f"many; {MOST_UNITS} can be told apart"
            )


def check_contrastive(settings: Mapping) -> None:
    """Refuse settings of the contrastive stage that could not run.

    Arguments
    ---------
    settings : mapping
        The block `contrastive` of the recipe.

    Raises
    ------
    SettingError
        If a number is too small, or the width no multiple of the codebooks.
    """
    for name, least in CONTRASTIVE.items():
        if settings.get(name, 0) < least:
            raise SettingError(
                f"contrastive: {name} must be {least} or more, not "
                f"{settings.get(name)}"
            )
    if settings["width"] % settings["codebooks"]:
        raise SettingError(
            f"contrastive: the width {settings['width']} is no multiple of "
            f"{settings['codebooks']} codebooks"
        )
    temperatures = [settings["temperature"], *settings["code_temperature"]]
    if len(temperatures) != 3 or min(temperatures) <= 0:
        raise SettingError(
            "contrastive: temperature is a number above 0, code_temperature "
            "two of them: at the first step and at the last"
        )


def _check_guidance(hparams: Mapping) -> None:
    later = [i for i in hparams["iterations"] if i["of"] not in SEEDS]
    guided = hparams["phone_directions"] or any(
        iteration["of"] == "auto" for iteration in later
    )
    if not later or not guided:
        return
    if hparams["known_sentences"] < 2:
        raise SettingError(
            "known_sentences must be 2 or more: directions are fitted on one "
            "half and measured on the other"
        )
    if importlib.util.find_spec("espeakng_loader") is None:
        raise MissingDependencyError(
            "of: auto and phone_directions need synthetic speech: pip install "
            "s3router[synthetic], or set phone_directions to 0 and name the "
            "layers (of: 4)"
        )


def check_amount(frames: np.ndarray, hparams: Mapping) -> None:
    """Refuse more units than the pool has frames.

    Arguments
    ---------
    frames : numpy.ndarray
        (items,) frames of each clip of the pool.
    hparams : mapping
        With `objective`, `iterations` and `unit_fit_frames`.

    Raises
    ------
    DataError
        Naming both numbers.
    """
    if hparams["objective"] != "hubert":
        return
    most = max(i.get("units", 2) for i in hparams["iterations"])
    found = min(int(frames.sum()), hparams["unit_fit_frames"])
    if found < most:
        raise DataError(
            f"{found} frames cannot make {most} units: give more audio "
            "(or raise unit_fit_frames), or ask for fewer units"
        )


def check_record(
    record: Path, expected: Mapping[str, object], remove: str
) -> None:
    """Refuse a file of an earlier run that was made with other settings.

    Arguments
    ---------
    record : pathlib.Path
        JSON beside the file, with the settings that made it. What it does not
        name is not compared: files from before it was written are taken.
    expected : mapping
        Settings now.
    remove : str
        What to delete, for the error.

    Raises
    ------
    MismatchError
        Naming the setting, both values, and what to do.
    """
    if not record.is_file():
        return
    found = read_json(record)
    for name, value in expected.items():
        if name in found and found[name] != value:
            raise MismatchError(
                f"{record.with_suffix('')} was made with {name} "
                f"{found[name]}, now it is {value}: {_advice(remove)}"
            )


def check_frames(
    path: Path, found: Sequence[int], expected: Sequence[int], remove: str
) -> None:
    """Refuse a cache whose clips have other numbers of frames.

    Arguments
    ---------
    path : pathlib.Path
        Of the cache, for the error.
    found, expected : sequence of int
        Frames of each clip.
    remove : str
        What to delete, for the error.

    Raises
    ------
    MismatchError
        Saying what to do.
    """
    if not np.array_equal(found, expected):
        raise MismatchError(
            f"{path} has {int(np.sum(found))} frames of {len(found)} clips, "
            f"but the pool has {int(np.sum(expected))} of {len(expected)} with "
            f"this encoder: {_advice(remove)}"
        )


def _advice(remove: str) -> str:
    return f"delete {remove}, or choose another --output_folder"


def check_checkpoint(checkpointer: Checkpointer, model: nn.Module) -> None:
    """Refuse a checkpoint whose weights have other names or shapes.

    Arguments
    ---------
    checkpointer : speechbrain.utils.checkpoints.Checkpointer
        With the recoverable `model`.
    model : torch.nn.Module
        What is to be filled.

    Raises
    ------
    MismatchError
        Naming the first weight that differs, and what to do.
    """
    checkpoint = checkpointer.find_checkpoint()
    if checkpoint is None or "model" not in checkpoint.paramfiles:
        return
    path = checkpoint.paramfiles["model"]
    saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    wanted = model.state_dict()
    for name in sorted(saved.keys() | wanted.keys()):
        shapes = [
            tuple(state[name].shape) if name in state else "nothing"
            for state in (saved, wanted)
        ]
        if shapes[0] != shapes[1]:
            folder = Path(checkpointer.checkpoints_dir)
            raise MismatchError(
                f"the checkpoint in {folder} is of another network ({name} "
                f"has {shapes[0]}, now {shapes[1]}): encoder_config or the "
                "number of units was changed; change it back, delete "
                f"{folder} and what came after it, or choose another "
                "--output_folder"
            )
