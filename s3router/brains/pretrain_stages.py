"""The trained stages behind the warm-up; the recipe calls them.

Each has checkpoints of its own and goes on from them, so that a killed run is
simply started again.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.epoch_loop import EpochCounter
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from s3router.brains.checkpoints import WholeCheckpointer
from s3router.brains.learning_curve import LearningCurve
from s3router.brains.main_process import process_number
from s3router.brains.pretrain import PretrainBrain, UnitBrain
from s3router.brains.pretrain_contrastive import ContrastiveBrain
from s3router.brains.pretrain_phone_units import (
    clips_with_targets,
    unit_count,
)
from s3router.brains.pretrain_pool import Pool
from s3router.brains.pretrain_snapshots import (
    hours_seen,
    save_snapshots,
    stage_names,
)
from s3router.data.contrastive_crops import ContrastiveBatches
from s3router.data.crops import CropBatches, Version
from s3router.data.ragged import Ragged
from s3router.data.shares import Share
from s3router.models.contrastive import ContrastivePredictor
from s3router.models.encoder_folder import save_encoder
from s3router.models.frame_grid import FrameGrid
from s3router.models.pretrain_head import UnitPredictor

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
        Their items are ready batches; those of `train` are dealt out to the
        processes, those of `valid` are the same for all.
    workers : int
        Processes that make them; 0: none.
    """
    brain.train_data = Share(train, *process_number())
    loaders = [
        brain.make_dataloader(
            data,
            stage,
            ckpt_prefix=prefix,
            batch_size=None,
            num_workers=workers,
            # So that the copy to a GPU need not be waited for.
            pin_memory=brain.device_type == "cuda",
        )
        for data, stage, prefix in (
            (brain.train_data, sb.Stage.TRAIN, "dataloader-"),
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
        Of SpeechBrain, those that were given, and `device`.
    on_epoch : callable
        See `PretrainBrain`.

    Returns
    -------
    PretrainBrain
        Ready to fit.
    """
    curve = Path(hparams["output_folder"], "curves", f"{name}.json")
    return kind(
        LearningCurve(curve, machine(run_opts["device"])),
        on_epoch,
        modules={"model": model},
        opt_class=hparams["opt_class"],
        hparams={
            "lr": settings["lr"],
            "schedule": hparams["schedule"],
            "epoch_counter": EpochCounter(settings["epochs"]),
            "frames_per_second": FrameGrid.of(
                hparams["encoder_config"]
            ).frames_per_second,
            "seen_weight": hparams["seen_weight"],
            "contrastive": hparams["contrastive"],
            "seed": hparams["seed"],
            "train_loggers": hparams["train_loggers"],
        },
        run_opts={
            "max_grad_norm": hparams["max_grad_norm"],
            "ckpt_interval_minutes": hparams["ckpt_interval_minutes"],
            **run_opts,
        },
        checkpointer=WholeCheckpointer(Path(hparams["work_folder"]) / name),
    )


def machine(device: str) -> str:
    """Return what computes: "cpu", or the name of the GPU."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(torch.device(device))
    return device.split(":")[0]


def all_batches(steps: int) -> int:
    """Return the batches of so many steps of all processes."""
    return steps * process_number()[1]


def run_iteration(
    number: int,
    encoder: PreTrainedModel,
    pool: Pool,
    versions: list[Version],
    units: Ragged,
    hparams: Mapping,
    run_opts: Mapping,
) -> UnitPredictor:
    """Predict units of hidden frames.

    Arguments
    ---------
    number : int
        Of the iteration, from 1.
    encoder : transformers.PreTrainedModel
        All but its front end trains; it goes on from where it is.
    pool : Pool
        How likely each clip is drawn.
    versions : list of Version
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
    model = UnitPredictor(encoder, unit_count(number, hparams))
    known = clips_with_targets(units)
    sets = [
        CropBatches(
            versions,
            units,
            np.where(known, drawn, 0.0),
            batches,
            seed=seed,
            **crops,
        )
        for drawn, batches, seed, crops in _both(pool, number, hparams)
    ]
    name, epochs = f"iteration_{number}", iteration["epochs"]
    _train(UnitBrain, name, model, encoder, epochs, sets, hparams, run_opts)
    return model


def run_contrastive(
    encoder: PreTrainedModel,
    pool: Pool,
    versions: list[Version],
    hparams: Mapping,
    run_opts: Mapping,
) -> ContrastivePredictor:
    """Tell hidden frames from others of their clip, as wav2vec 2.0.

    Arguments
    ---------
    encoder : transformers.PreTrainedModel
        All but its front end trains.
    pool : Pool
        How likely each clip is drawn.
    versions : list of Version
        See `features_of`.
    hparams, run_opts : mapping
        Of the recipe.

    Returns
    -------
    ContrastivePredictor
        The trained network. `encoder_folder` has its encoder.
    """
    settings = hparams["contrastive"]
    torch.manual_seed(hparams["seed"] + 1)
    model = ContrastivePredictor(
        encoder, settings["codebooks"], settings["codes"], settings["width"]
    )
    sets = [
        ContrastiveBatches(
            versions,
            drawn,
            batches,
            settings["distractors"],
            seed=seed,
            **crops,
        )
        for drawn, batches, seed, crops in _both(pool, 1, hparams)
    ]
    (name,), epochs = stage_names(hparams), settings["epochs"]
    kind = ContrastiveBrain
    _train(kind, name, model, encoder, epochs, sets, hparams, run_opts)
    return model


def _train(
    kind: type[PretrainBrain],
    name: str,
    model: nn.Module,
    encoder: PreTrainedModel,
    epochs: int,
    sets: list[Dataset],
    hparams: Mapping,
    run_opts: Mapping,
) -> None:
    """Fit a stage of masked prediction; its encoder is written on the way."""
    brain = stage_brain(
        kind,
        name,
        model,
        {"epochs": epochs, "lr": hparams["lr"]},
        hparams,
        run_opts,
        _exporter(encoder, name, epochs, hparams),
    )
    fit_stage(brain, *sets, hparams["num_workers"])


def _both(pool: Pool, number: int, hparams: Mapping) -> list[tuple]:
    """Return odds, batches, seed and options of training and validation."""
    rate = pool.grid.frames_per_second
    crops = {
        "batch_frames": round(hparams["batch_seconds"] * rate),
        "crop_frames": round(hparams["crop_seconds"] * rate),
        "degraded_share": hparams["degraded_share"],
        "span_share": hparams["span_share"],
        "span_frames": max(1, round(hparams["span_seconds"] * rate)),
    }
    steps = all_batches(hparams["epoch_steps"])
    seed = hparams["seed"]
    return [
        (pool.train, steps, seed + number, crops),
        (pool.valid, VALID_BATCHES, seed - 1, crops),
    ]


def _exporter(
    encoder: PreTrainedModel, name: str, epochs: int, hparams: Mapping
) -> Callable[[int], None]:
    """Return what a stage does with its encoder behind each epoch."""

    def export(epoch: int) -> None:
        if epoch == epochs or epoch % hparams["export_every"] == 0:
            save_encoder(encoder, hparams["encoder_folder"])
        save_snapshots(encoder, hours_seen(name, hparams), hparams)

    return export
