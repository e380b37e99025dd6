"""The trained stages of pre-training; the recipe calls them.

Each has checkpoints of its own and goes on from them, so that a killed run is
simply started again.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.utils.epoch_loop import EpochCounter
from torch import nn
from torch.utils.data import Dataset
from transformers import HubertModel

from s3router.brains.checkpoints import WholeCheckpointer
from s3router.brains.pretrain import (
    LearningCurve,
    MelBrain,
    PretrainBrain,
    UnitBrain,
)
from s3router.brains.pretrain_audio import MelCrops
from s3router.brains.pretrain_pool import Pool
from s3router.data.crops import CropBatches
from s3router.data.ragged import Ragged
from s3router.models.hubert_folder import save_hubert
from s3router.models.pretrain_head import MelRegressor, UnitPredictor

FRAMES_PER_SECOND = 50
VALID_BATCHES = 8


def fit_stage(
    brain: PretrainBrain, train: Dataset, valid: Dataset, workers: int
) -> None:
    """Fit one stage.

    Arguments
    ---------
    brain : PretrainBrain
        Of the stage.
    train, valid : torch.utils.data.Dataset
        Their items are ready batches.
    workers : int
        Processes that make them; 0: none.
    """
    brain.train_data = train
    loaders = [
        brain.make_dataloader(
            data,
            stage,
            ckpt_prefix=prefix,
            batch_size=None,
            num_workers=workers,
        )
        for data, stage, prefix in (
            (train, sb.Stage.TRAIN, "dataloader-"),
            (valid, sb.Stage.VALID, None),
        )
    ]
    brain.fit(brain.hparams.epoch_counter, *loaders)


def stage_brain(
    kind: type[PretrainBrain],
    name: str,
    model: nn.Module,
    settings: Mapping[str, float],
    hparams: Mapping,
    run_opts: Mapping,
    on_epoch: Callable[[int], None] | None = None,
) -> PretrainBrain:
    """Return the Brain of a stage, with checkpoints and curve of its own.

    Arguments
    ---------
    kind : type
        Its class.
    name : str
        Of its folder and curve.
    model : torch.nn.Module
        What trains.
    settings : mapping
        `epochs` and `lr`.
    hparams : mapping
        Of the recipe.
    run_opts : mapping
        Of SpeechBrain.
    on_epoch : callable
        See `PretrainBrain`.

    Returns
    -------
    PretrainBrain
        Ready to fit.
    """
    curve = Path(hparams["output_folder"], "curves", f"{name}.json")
    return kind(
        LearningCurve(curve),
        on_epoch,
        modules={"model": model},
        opt_class=hparams["opt_class"],
        hparams={
            "lr": settings["lr"],
            "schedule": hparams["schedule"],
            "epoch_counter": EpochCounter(settings["epochs"]),
            "frames_per_second": FRAMES_PER_SECOND,
            "seen_weight": hparams["seen_weight"],
            "train_loggers": hparams["train_loggers"],
        },
        run_opts={
            "max_grad_norm": hparams["max_grad_norm"],
            "ckpt_interval_minutes": hparams["ckpt_interval_minutes"],
            **run_opts,
        },
        checkpointer=WholeCheckpointer(Path(hparams["work_folder"]) / name),
    )


def warm_up(
    encoder: HubertModel, pool: Pool, hparams: Mapping, run_opts: Mapping
) -> None:
    """Teach the front end log mel bands of clean speech, then freeze it.

    Arguments
    ---------
    encoder : HubertModel
        Its front end and projection train.
    pool : Pool
        Audio.
    hparams, run_opts : mapping
        Of the recipe.
    """
    brain = stage_brain(
        MelBrain,
        "warmup",
        MelRegressor(encoder, hparams["mel_bins"]),
        {"epochs": hparams["warmup_epochs"], "lr": hparams["warmup_lr"]},
        hparams,
        # Convolutions this narrow gain nothing from half precision.
        {**run_opts, "precision": "fp32"},
    )
    seed = hparams["seed"]
    sets = [
        MelCrops(
            pool.audio,
            drawn,
            batches,
            clips=hparams["warmup_clips"],
            seconds=hparams["warmup_seconds"],
            bins=hparams["mel_bins"],
            seed=own_seed,
        )
        for drawn, batches, own_seed in (
            (pool.train, hparams["warmup_steps"], seed),
            (pool.valid, VALID_BATCHES, seed + 1),
        )
    ]
    fit_stage(brain, *sets, hparams["num_workers"])
    encoder.feature_extractor.requires_grad_(False)


def run_iteration(
    number: int,
    encoder: HubertModel,
    pool: Pool,
    versions: list[Ragged],
    units: Ragged,
    hparams: Mapping,
    run_opts: Mapping,
) -> UnitPredictor:
    """Predict units of hidden frames.

    Arguments
    ---------
    number : int
        Of the iteration, from 1.
    encoder : HubertModel
        All but its front end trains; it goes on from where it is.
    pool : Pool
        How likely each clip is drawn.
    versions : list of Ragged
        See `features_of`.
    units : Ragged
        Targets.
    hparams, run_opts : mapping
        Of the recipe.

    Returns
    -------
    UnitPredictor
        The trained network. `encoder_folder` has its encoder.
    """
    iteration = hparams["iterations"][number - 1]
    # A resumed run has drawn less by now: its new head must be the same.
    torch.manual_seed(hparams["seed"] + number)
    model = UnitPredictor(encoder, iteration["units"])

    def export(epoch: int) -> None:
        last = epoch == iteration["epochs"]
        if last or epoch % hparams["export_every"] == 0:
            save_hubert(encoder, hparams["encoder_folder"])

    settings = {"epochs": iteration["epochs"], "lr": hparams["lr"]}
    name = f"iteration_{number}"
    brain = stage_brain(
        UnitBrain, name, model, settings, hparams, run_opts, export
    )
    sets = [
        CropBatches(
            versions,
            units,
            drawn,
            batches,
            batch_frames=hparams["batch_frames"],
            crop_frames=hparams["crop_frames"],
            degraded_share=hparams["degraded_share"],
            span_share=hparams["span_share"],
            span_frames=hparams["span_frames"],
            seed=seed,
        )
        for drawn, batches, seed in (
            (pool.train, hparams["epoch_steps"], hparams["seed"] + number),
            (pool.valid, VALID_BATCHES, hparams["seed"] - 1),
        )
    ]
    fit_stage(brain, *sets, hparams["num_workers"])
    return model


def resolve_precision(wanted: str, fast: bool) -> str:
    """Return "bf16" or "fp32" for "auto"; others unchanged."""
    if wanted != "auto":
        return wanted
    return "bf16" if fast else "fp32"
