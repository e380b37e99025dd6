#!/usr/bin/env python3
"""Pre-trains a speech encoder by masked prediction of k-means units.

To run this recipe, from the repository's root, on any folder of audio:
> python recipes/pretrain/train.py hparams/pretrain_tiny.yaml \
    --data_folder=/path/to/audio --sources=[]

HuBERT (Hsu et al., 2021) in iterations: units of MFCCs first, then units of a
layer of the network so trained. Before them, the front end learns log mel
bands and is frozen, so that its output is computed once. A run that was
stopped goes on where it was.

The output folder gets the encoder (`encoder/`, in the Hugging Face format,
usable from the first minutes on) and the learning curves (`curves/*.json`).
"""

import sys
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.logger import get_logger
from transformers import HubertModel

from s3router.brains.hparams import flatten_hparams, load_hparams
from s3router.brains.pretrain import LearningCurve, MelBrain, UnitBrain
from s3router.brains.pretrain_targets import (
    LayerFrames,
    MelCrops,
    MFCCFrames,
    cache_features,
    decode_pool,
    held_out,
    make_units,
)
from s3router.data.crops import CropBatches, clip_probabilities
from s3router.data.manifest import read_manifest
from s3router.data.ragged import Ragged
from s3router.errors import SettingError, exit_on_error
from s3router.formats.files import write_json
from s3router.models.hubert_folder import bfloat16_is_fast, save_hubert
from s3router.models.pretrain_head import MelRegressor, UnitPredictor

logger = get_logger(__name__)


class Pool:
    """Decoded audio with who speaks what, and how it is drawn."""

    def __init__(self, hparams):
        rows = read_manifest(Path(hparams["work_folder"]) / "pool.csv")
        path = Path(hparams["work_folder"]) / "audio.i16"
        self.audio, items = decode_pool(rows, path)
        self.speakers = [item["speaker"] for item in items]
        languages = [item["language"] for item in items]
        lengths = self.audio.lengths.astype(float)
        valid = held_out(items, hparams["held_out_share"])
        alpha = hparams["language_alpha"]
        drawn = clip_probabilities(
            np.where(valid, 1e-9, lengths), languages, alpha
        )
        self.train = np.where(valid, 0.0, drawn)
        self.valid = np.where(valid, lengths, 0.0)


def fit_stage(brain, train, valid, hparams):
    """Fit one stage; its loaders give ready batches."""
    brain.train_data = train
    loaders = [
        brain.make_dataloader(
            data,
            stage,
            ckpt_prefix=prefix,
            batch_size=None,
            num_workers=hparams["num_workers"],
        )
        for data, stage, prefix in (
            (train, sb.Stage.TRAIN, "dataloader-"),
            (valid, sb.Stage.VALID, None),
        )
    ]
    brain.fit(brain.hparams.epoch_counter, *loaders)


def stage_brain(kind, name, model, epochs, rate, hparams, run_opts, on_epoch):
    """Return the Brain of a stage, with a folder of its own."""
    work = Path(hparams["work_folder"]) / name
    return kind(
        LearningCurve(Path(hparams["output_folder"], "curves", f"{name}.json")),
        on_epoch,
        modules={"model": model},
        opt_class=hparams["opt_class"],
        hparams={
            "lr": rate,
            "schedule": hparams["schedule"],
            "epoch_counter": EpochCounter(epochs),
            "frames_per_second": 50,
            "seen_weight": hparams["seen_weight"],
            "train_loggers": hparams["train_loggers"],
        },
        run_opts={
            **run_opts,
            "max_grad_norm": hparams["max_grad_norm"],
            "ckpt_interval_minutes": hparams["ckpt_interval_minutes"],
        },
        checkpointer=Checkpointer(work),
    )


def warm_up(encoder, pool, hparams, run_opts):
    """Stage 0: teach the front end log mel bands of clean speech."""
    model = MelRegressor(encoder, hparams["mel_bins"])
    brain = stage_brain(
        MelBrain,
        "warmup",
        model,
        hparams["warmup_epochs"],
        hparams["warmup_lr"],
        hparams,
        # Convolutions this narrow gain nothing from half precision.
        {**run_opts, "precision": "fp32"},
        None,
    )
    data = {
        "clips": hparams["warmup_clips"],
        "seconds": hparams["warmup_seconds"],
        "bins": hparams["mel_bins"],
    }
    train = MelCrops(
        pool.audio,
        pool.train,
        hparams["warmup_steps"],
        seed=hparams["seed"],
        **data,
    )
    valid = MelCrops(
        pool.audio, pool.valid, 4, seed=hparams["seed"] + 1, **data
    )
    fit_stage(brain, train, valid, hparams)
    encoder.feature_extractor.requires_grad_(False)


def features_of(encoder, pool, hparams):
    """Return the cached output of the frozen front end, clean one first."""
    work = Path(hparams["work_folder"])
    versions = []
    for number in range(hparams["degraded_versions"] + 1):
        seed = None if number == 0 else hparams["seed"] + number
        path = work / f"features_{number}.f16"
        front_end = encoder.feature_extractor
        run_on_main(cache_features, args=[front_end, pool.audio, path, seed])
        versions.append(Ragged(path, "float16"))
    return versions


def units_of(number, iteration, previous, pool, clean, hparams, precision):
    """Return the targets of an iteration."""
    path = Path(hparams["work_folder"]) / f"units_{number}.u16"
    if Ragged.exists(path):
        return Ragged(path, "uint16")
    if iteration["of"] == "mfcc":
        frames = MFCCFrames(pool.audio, pool.speakers)
    elif previous is None:
        raise SettingError("the first iteration must be of mfcc")
    else:
        frames = LayerFrames(previous, clean, iteration["of"], precision)
    return make_units(
        frames,
        path,
        iteration["units"],
        hparams["unit_fit_frames"],
        hparams["seed"],
    )


def run_iteration(number, iteration, encoder, pool, versions, units, settings):
    """Stages 1 and 2: predict units of hidden frames."""
    hparams, run_opts = settings
    model = UnitPredictor(encoder, iteration["units"])
    last = iteration["epochs"]

    def export(epoch):
        if epoch % hparams["export_every"] == 0 or epoch == last:
            save_hubert(encoder, hparams["encoder_folder"])

    brain = stage_brain(
        UnitBrain,
        f"iteration_{number}",
        model,
        iteration["epochs"],
        hparams["lr"],
        hparams,
        run_opts,
        export,
    )
    data = {
        "versions": versions,
        "units": units,
        "batch_frames": hparams["batch_frames"],
        "crop_frames": hparams["crop_frames"],
        "degraded_share": hparams["degraded_share"],
        "span_share": hparams["span_share"],
        "span_frames": hparams["span_frames"],
    }
    train = CropBatches(
        probabilities=pool.train,
        batches=hparams["epoch_steps"],
        seed=hparams["seed"] + number,
        **data,
    )
    valid = CropBatches(
        probabilities=pool.valid, batches=8, seed=hparams["seed"] - 1, **data
    )
    fit_stage(brain, train, valid, hparams)
    return model


@exit_on_error
def main(arguments):
    """Gather speech, warm up, and pre-train in iterations."""
    hparams_file, run_opts, overrides = sb.parse_arguments(arguments)
    sb.utils.distributed.ddp_init_group(run_opts)
    hparams = load_hparams(hparams_file, overrides)
    output = Path(hparams["output_folder"])
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        save_env_desc=hparams["save_environment"],
    )
    (output / "hyperparams.yaml").write_text(
        flatten_hparams(hparams_file, overrides), encoding="utf-8"
    )

    from prepare import prepare_pool

    run_on_main(
        prepare_pool,
        kwargs={
            "data_folder": hparams["data_folder"],
            "save_folder": hparams["work_folder"],
            "sources": hparams["sources"],
            "synthetic_hours": hparams["synthetic_hours"],
            "synthetic_languages": hparams["synthetic_languages"],
            "min_seconds": hparams["min_seconds"],
            "max_seconds": hparams["max_seconds"],
            "seed": hparams["seed"],
        },
    )
    pool = Pool(hparams)
    precision = hparams["precision"]
    if precision == "auto":
        precision = "bf16" if bfloat16_is_fast() else "fp32"
    run_opts = {**run_opts, "precision": precision}
    kind = torch.bfloat16 if precision == "bf16" else torch.float32

    encoder = HubertModel(hparams["encoder_config"])
    warm_up(encoder, pool, hparams, run_opts)
    versions = features_of(encoder, pool, hparams)
    previous = None
    for number, iteration in enumerate(hparams["iterations"], start=1):
        units = units_of(
            number, iteration, previous, pool, versions[0], hparams, kind
        )
        previous = run_iteration(
            number,
            iteration,
            encoder,
            pool,
            versions,
            units,
            (hparams, run_opts),
        )
    save_hubert(encoder, hparams["encoder_folder"])
    write_json(output / "done.json", {"iterations": hparams["iterations"]})
    logger.info("the encoder is in %s", hparams["encoder_folder"])


if __name__ == "__main__":
    main(sys.argv[1:])
