"""Brains of pre-training: mel warm-up of the front end, then masked units.

What is hidden, drawn and degraded is decided by the data sets, which depend on
seed and step alone; with the checkpoint, a killed run goes on at its step.
"""

import time
from collections.abc import Callable
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.utils.epoch_loop import EpochCounter
from torch.nn import functional
from torch.utils.data import DataLoader

from s3router.data.crops import CropBatch
from s3router.formats.files import read_json, write_json


class LearningCurve:
    """Numbers of each epoch of one stage, kept as JSON.

    Arguments
    ---------
    path : str or path
        The file; its entries after a resumed epoch are dropped.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.entries: list[dict] = []
        if self.path.is_file():
            self.entries = read_json(self.path)["entries"]
        self._started = time.process_time()
        self._earlier = 0.0

    def rewind(self, epoch: int) -> None:
        """Forget entries after an epoch: their steps are done again."""
        self.entries = [e for e in self.entries if e["epoch"] <= epoch]
        self._started = time.process_time()
        self._earlier = self.entries[-1]["cpu_seconds"] if self.entries else 0.0

    def add(self, **numbers: float) -> None:
        """Append an epoch's numbers and write the file."""
        spent = time.process_time() - self._started
        numbers["cpu_seconds"] = self._earlier + spent
        self.entries.append(numbers)
        write_json(self.path, {"format_version": 1, "entries": self.entries})


class PretrainBrain(sb.Brain):
    """What both stages share: schedule by step, sums, curve, checkpoints.

    Needs `lr`, `schedule` (a function of progress), `epoch_counter` and
    `frames_per_second` in `hparams`.

    Arguments
    ---------
    curve : LearningCurve
        Gets each epoch's numbers.
    on_epoch : callable or None
        Called with the epoch after its checkpoint.
    *args, **kwargs
        Of `speechbrain.Brain`.
    """

    def __init__(
        self,
        curve: LearningCurve,
        on_epoch: Callable[[int], None] | None,
        *args,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.curve = curve
        self.on_epoch = on_epoch
        self._total_steps = 1
        self._sums: dict[str, float] = {}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverables(
                {
                    "model": self.modules.model,
                    "epoch_counter": self.hparams.epoch_counter,
                }
            )

    def fit(
        self,
        epoch_counter: EpochCounter,
        train_set: DataLoader,
        *args,
        **kwargs,
    ) -> None:
        """Fit as SpeechBrain does; remember how many steps there will be.

        Arguments
        ---------
        epoch_counter : speechbrain.utils.epoch_loop.EpochCounter
            Its limit and the loader's length give the number of steps.
        train_set : torch.utils.data.DataLoader
            Made by `make_dataloader`.
        *args, **kwargs
            Of `speechbrain.Brain.fit`.
        """
        self._total_steps = max(1, len(train_set) * epoch_counter.limit)
        super().fit(epoch_counter, train_set, *args, **kwargs)

    def on_fit_start(self) -> None:
        """Recover a checkpoint, and forget what came after it."""
        super().on_fit_start()
        self.curve.rewind(self.hparams.epoch_counter.current)

    def optimizers_step(self) -> None:
        """Set the rate of this step, then step."""
        progress = self.optimizer_step / self._total_steps
        rate = self.hparams.lr * self.hparams.schedule(progress)
        self.optimizer.param_groups[0]["lr"] = rate
        super().optimizers_step()

    def _count(self, **numbers: float) -> None:
        for name, value in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)

    def _means(self, stage: sb.Stage) -> dict[str, float]:
        raise NotImplementedError

    def on_stage_start(self, stage: sb.Stage, epoch: int | None) -> None:
        """Choose what the epoch draws; start its sums."""
        self._sums = {}
        if stage == sb.Stage.TRAIN:
            self.train_data.set_epoch(epoch)

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None
    ) -> None:
        """After validation: log, checkpoint, and let others take a look."""
        means = self._means(stage)
        if stage == sb.Stage.TRAIN:
            self._train_means = {
                "train_loss": stage_loss,
                **{f"train_{name}": n for name, n in means.items()},
            }
            return
        numbers = {
            **self._train_means,
            "valid_loss": stage_loss,
            **{f"valid_{name}": n for name, n in means.items()},
        }
        if not sb.utils.distributed.if_main_process():
            return
        self.curve.add(epoch=epoch, step=self.optimizer_step, **numbers)
        shown = {
            name: round(float(value), 4) for name, value in numbers.items()
        }
        for logger in self.hparams.train_loggers:
            logger.log_stats(
                stats_meta={"epoch": epoch, "step": self.optimizer_step},
                train_stats=shown,
            )
        self.checkpointer.save_and_keep_only(
            meta={"epoch": epoch}, num_to_keep=1
        )
        if self.on_epoch is not None:
            self.on_epoch(epoch)


class MelBrain(PretrainBrain):
    """Regresses clean log mel bands from degraded samples."""

    def compute_forward(
        self, batch: tuple[torch.Tensor, torch.Tensor], stage: sb.Stage
    ) -> torch.Tensor:
        """Return predicted bands of the degraded samples."""
        degraded, _ = batch
        return self.modules.model(degraded.to(self.device))

    def compute_objectives(
        self,
        predictions: torch.Tensor,
        batch: tuple[torch.Tensor, torch.Tensor],
        stage: sb.Stage,
    ) -> torch.Tensor:
        """Return the mean squared error; 1 is what a constant reaches."""
        _, bands = batch
        loss = functional.mse_loss(predictions.float(), bands.to(self.device))
        self._count(squared_error=loss.detach(), batches=1)
        return loss

    def _means(self, stage: sb.Stage) -> dict[str, float]:
        batches = max(1.0, self._sums.get("batches", 0.0))
        return {"squared_error": self._sums.get("squared_error", 0.0) / batches}


class UnitBrain(PretrainBrain):
    """Predicts units of hidden frames, and with less weight of seen ones.

    HuBERT (Hsu et al., 2021, section II-C) with alpha between 0 and 1; needs
    `seen_weight` in `hparams`. Hidden frames alone let a small network sit at
    the unigram entropy.
    """

    def compute_forward(
        self, batch: CropBatch, stage: sb.Stage
    ) -> torch.Tensor:
        """Return logits over units, (batch, frames, units)."""
        batch = batch.to(self.device)
        return self.modules.model(batch.features, batch.frames, batch.hidden)

    def compute_objectives(
        self, predictions: torch.Tensor, batch: CropBatch, stage: sb.Stage
    ) -> torch.Tensor:
        """Return the mean cross-entropy of hidden plus weighted seen frames."""
        batch = batch.to(self.device)
        valid = batch.units >= 0
        logits = predictions.float()[valid]
        units, hidden = batch.units[valid], batch.hidden[valid]
        losses = functional.cross_entropy(logits, units, reduction="none")
        right = logits.detach().argmax(-1) == units
        parts = {}
        for name, chosen in (("masked", hidden), ("unmasked", ~hidden)):
            parts[name] = losses[chosen].sum() / chosen.sum().clamp(min=1)
            self._count(
                **{
                    f"{name}_loss": losses.detach()[chosen].sum(),
                    f"{name}_right": right[chosen].sum(),
                    f"{name}_frames": chosen.sum(),
                }
            )
        return parts["masked"] + self.hparams.seen_weight * parts["unmasked"]

    def _means(self, stage: sb.Stage) -> dict[str, float]:
        means = {}
        total = 0.0
        for name in ("masked", "unmasked"):
            frames = self._sums.get(f"{name}_frames", 0.0)
            total += frames
            count = max(1.0, frames)
            means[f"{name}_loss"] = self._sums.get(f"{name}_loss", 0.0) / count
            means[f"{name}_accuracy"] = (
                self._sums.get(f"{name}_right", 0.0) / count
            )
        means["masked_share"] = self._sums.get("masked_frames", 0.0) / max(
            1.0, total
        )
        means["hours"] = total / self.hparams.frames_per_second / 3600
        return means
