"""The Brain of a trial: the product's own, with settings instead of a YAML."""

from collections.abc import Mapping
from functools import partial

import torch
from speechbrain.nnet.losses import ctc_loss
from speechbrain.utils.epoch_loop import EpochCounter
from torch.utils.data import DataLoader

from s3router.brains.ctc import CTCBrain
from s3router.brains.schedule import warmup_cosine
from s3router.methods.base import Method
from s3router.models.ctc_model import CTCModel
from s3router.models.frame_grid import FrameGrid
from s3router.models.spec_augment import SpanMasking


class TrialBrain(CTCBrain):
    """A CTCBrain that remembers its losses."""

    def on_fit_start(self) -> None:
        """Start with no loss."""
        super().on_fit_start()
        self.losses: list[float] = []

    def on_fit_batch_end(
        self,
        batch: object,
        outputs: object,
        loss: torch.Tensor,
        should_step: bool,
    ) -> None:
        """Keep the loss."""
        self.losses.append(float(loss.detach()))


def make_brain(
    model: CTCModel, method: Method, trial: Mapping[str, object]
) -> TrialBrain:
    """Return the Brain of a trial.

    Arguments
    ---------
    model : CTCModel
        On its device.
    method : Method
        Attached to the model's encoder.
    trial : mapping
        Complete.
    """
    grid = FrameGrid.of(model.encoder.model.config)
    frames = round(trial["mask_seconds"] * grid.frames_per_second)
    rates = dict.fromkeys(method.parameter_groups(), trial["rate"])
    rates["head"] = trial["head_rate"] if rates else trial["rate"]
    device = model.encoder.mask_embedding.device
    return TrialBrain(
        method=method,
        head=model.head,
        modules={"recognizer": model},
        hparams={
            # One kernel for all tensors: a third of the time on a CPU.
            "opt_class": partial(
                torch.optim.Adam, betas=(0.9, 0.98), fused=True
            ),
            "learning_rates": rates,
            "schedule": warmup_cosine,
            "epoch_counter": EpochCounter(limit=1),
            "validate_every": 1,
            "train_loggers": [],
            "ctc_cost": partial(ctc_loss, blank_index=0),
            "span_masking": SpanMasking(
                trial["mask_prob"],
                max(1, frames),
                trial["channel_prob"],
                trial["channel_length"],
            ),
        },
        run_opts={
            "device": str(device),
            "precision": trial["precision"],
            "max_grad_norm": trial["max_grad_norm"],
            "noprogressbar": True,
        },
    )


def fit(brain: TrialBrain, loader: DataLoader) -> bool:
    """Train; return whether the loss went to infinity on the way."""
    try:
        brain.fit(brain.hparams.epoch_counter, loader)
    except ValueError as error:
        # SpeechBrain has no class of its own for it.
        if "Loss is not finite" not in str(error):
            raise
        return True
    return False
