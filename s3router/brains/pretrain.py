"""Brains of pre-training: mel warm-up of the front end, then masked units.

What is hidden, drawn and degraded is decided by the data sets, which depend on
seed and step alone; with the checkpoint, a killed run goes on at its step.
"""

import math
from collections.abc import Callable

import speechbrain as sb
import torch
from speechbrain.utils.epoch_loop import EpochCounter
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from s3router.brains.learning_curve import LearningCurve
from s3router.brains.main_process import alone, process_number
from s3router.brains.pretrain_checks import check_checkpoint
from s3router.brains.random_state import RandomState
from s3router.brains.running_sums import RunningSums
from s3router.data.crops import CropBatch
from s3router.errors import SettingError


class PretrainBrain(sb.Brain):
    """What all stages share: schedule by step, sums, curve, checkpoints.

    Needs `lr`, `schedule` (a function of progress), `epoch_counter` and
    `frames_per_second` in `hparams`.

    Arguments
    ---------
    curve : LearningCurve
        Gets each epoch's numbers.
    on_epoch : callable or None
        Called on the main process with the epoch, before its checkpoint: a
        run that is killed in between calls it again.
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
        self.sums = RunningSums()
        self.random_state = RandomState()
        self._total_steps = 1
        if self.checkpointer is None:
            return
        self.checkpointer.add_recoverables(
            {
                "model": self.modules.model,
                "epoch_counter": self.hparams.epoch_counter,
            }
        )
        # Checkpoints from before these were kept go on without them.
        for name in ("sums", "random_state"):
            self.checkpointer.add_recoverable(
                name, getattr(self, name), optional_load=True
            )

    def _train_loader_specifics(
        self, dataset: Dataset, loader_kwargs: dict
    ) -> dict:
        # Each process has batches of its own already (see `Share`).
        return loader_kwargs

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
        steps = len(train_set) // self.grad_accumulation_factor
        self._total_steps = max(1, steps * epoch_counter.limit)
        super().fit(epoch_counter, train_set, *args, **kwargs)

    def on_fit_start(self) -> None:
        """Recover a checkpoint that fits, and forget what came after it."""
        if self.checkpointer is not None:
            check_checkpoint(self.checkpointer, self.modules.model)
        super().on_fit_start()
        self.random_state.apply(end_of_epoch=True)
        self.curve.rewind(self.hparams.epoch_counter.current)

    def on_fit_batch_start(self, batch: object, should_step: bool) -> None:
        """Put a recovered state of the random generators in place."""
        self.random_state.apply(end_of_epoch=False)

    @property
    def progress(self) -> float:
        """Share of all optimizer steps done, in [0, 1]."""
        return self.optimizer_step / self._total_steps

    def optimizers_step(self) -> None:
        """Set the rate of this step, then step."""
        rate = self.hparams.lr * self.hparams.schedule(self.progress)
        self.optimizer.param_groups[0]["lr"] = rate
        super().optimizers_step()

    def check_loss_isfinite(self, loss: torch.Tensor) -> None:
        """Stop before a loss that is no number spoils the weights.

        Arguments
        ---------
        loss : torch.Tensor
            Of this step.

        Raises
        ------
        SettingError
            At the first one; with fp16, whose scaler skips such steps, when
            `--nonfinite_patience` is spent.
        """
        if torch.isfinite(loss):
            return
        self.nonfinite_count += 1
        patient = self.nonfinite_count <= self.nonfinite_patience
        if not (self.scaler.is_enabled() and patient):
            raise self._not_finite()

    def _not_finite(self) -> SettingError:
        return SettingError(
            f"{self.curve.path.stem}: the loss is no finite number at step "
            f"{self.optimizer_step + 1}: lower the learning rate "
            f"({self.hparams.lr:g}) or use --precision=fp32 (now "
            f"{self.precision}); the same command goes on from the last "
            "checkpoint"
        )

    def compute_objectives(
        self, predictions: object, batch: object, stage: sb.Stage
    ) -> torch.Tensor:
        """Return the loss of the stage, and add it up."""
        loss = self.objective(predictions, batch)
        self.sums.add(loss=loss, batches=1)
        return loss

    def objective(self, predictions: object, batch: object) -> torch.Tensor:
        """Return the loss; each stage has its own."""
        raise NotImplementedError

    def means(self, sums: dict[str, float]) -> dict[str, float]:
        """Return what the curve shows of an epoch's sums, loss apart."""
        raise NotImplementedError

    def _save_intra_epoch_ckpt(self) -> None:
        self.sums.gather(self.device)
        super()._save_intra_epoch_ckpt()

    def on_stage_start(self, stage: sb.Stage, epoch: int | None) -> None:
        """Choose what the epoch draws; start its sums."""
        self.sums.start()
        if stage == sb.Stage.TRAIN:
            self.train_data.set_epoch(epoch)

    def on_stage_end(
        self, stage: sb.Stage, stage_loss: float, epoch: int | None
    ) -> None:
        """After validation: log, let others take a look, checkpoint."""
        name = stage.name.lower()
        if stage == sb.Stage.TRAIN:
            self.sums.gather(self.device)
        sums = self.sums.totals()
        loss = sums["loss"] / sums["batches"] if sums.get("batches") else 0.0
        if not math.isfinite(loss):
            raise self._not_finite()
        numbers = {f"{name}_loss": loss}
        for key, value in self.means(sums).items():
            numbers[f"{name}_{key}"] = value
        if stage == sb.Stage.TRAIN:
            self._train_numbers = numbers
            return
        if process_number()[0] == 0:
            with alone():
                self._report(epoch, {**self._train_numbers, **numbers})
        self.checkpointer.save_and_keep_only(
            meta={"epoch": epoch}, num_to_keep=1
        )

    def _report(self, epoch: int, numbers: dict[str, float]) -> None:
        self.curve.add(epoch=epoch, step=self.optimizer_step, **numbers)
        shown = {name: round(value, 4) for name, value in numbers.items()}
        for logger in self.hparams.train_loggers:
            logger.log_stats(
                stats_meta={"epoch": epoch, "step": self.optimizer_step},
                train_stats=shown,
            )
        if self.on_epoch is not None:
            self.on_epoch(epoch)


class MelBrain(PretrainBrain):
    """Regresses log mel bands from samples."""

    def compute_forward(
        self, batch: tuple[torch.Tensor, torch.Tensor], stage: sb.Stage
    ) -> torch.Tensor:
        """Return predicted bands."""
        samples, _ = batch
        return self.modules.model(samples.to(self.device, non_blocking=True))

    def objective(
        self,
        predictions: torch.Tensor,
        batch: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Return the mean squared error; 1 is what a constant reaches."""
        bands = batch[1].to(self.device, non_blocking=True)
        return functional.mse_loss(predictions.float(), bands)

    def means(self, sums: dict[str, float]) -> dict[str, float]:
        """Return the squared error under its own name."""
        return {"squared_error": sums["loss"] / max(1.0, sums["batches"])}


class UnitBrain(PretrainBrain):
    """Predicts units of hidden frames, and with less weight of seen ones.

    HuBERT (Hsu et al., 2021, section II-C) with alpha between 0 and 1; needs
    `seen_weight` in `hparams`. Hidden frames alone let a small network sit at
    the unigram entropy.
    """

    def compute_forward(
        self, batch: CropBatch, stage: sb.Stage
    ) -> tuple[torch.Tensor, CropBatch]:
        """Return logits over units, and the batch on its device."""
        batch = batch.to(self.device, non_blocking=True)
        logits = self.modules.model(batch.features, batch.frames, batch.hidden)
        return logits, batch

    def objective(
        self, predictions: tuple[torch.Tensor, CropBatch], batch: CropBatch
    ) -> torch.Tensor:
        """Return the mean cross-entropy of hidden plus weighted seen frames."""
        logits, batch = predictions
        units = batch.units.flatten()
        logits = logits.float().flatten(0, 1)
        losses = functional.cross_entropy(logits, units, reduction="none")
        right = logits.detach().argmax(-1) == units
        valid, hidden = units >= 0, batch.hidden.flatten()
        parts = {}
        for name, chosen in (
            ("masked", valid & hidden),
            ("unmasked", valid & ~hidden),
        ):
            # By a product, not by an index: nothing is waited for.
            total, count = (losses * chosen).sum(), chosen.sum()
            parts[name] = total / count.clamp(min=1)
            self.sums.add(
                **{
                    f"{name}_loss": total,
                    f"{name}_right": (right & chosen).sum(),
                    f"{name}_frames": count,
                }
            )
        return parts["masked"] + self.hparams.seen_weight * parts["unmasked"]

    def means(self, sums: dict[str, float]) -> dict[str, float]:
        """Return losses and accuracies by frame, and the hours seen."""
        means = {}
        for name in ("masked", "unmasked"):
            count = max(1.0, sums[f"{name}_frames"])
            means[f"{name}_loss"] = sums[f"{name}_loss"] / count
            means[f"{name}_accuracy"] = sums[f"{name}_right"] / count
        total = sums["masked_frames"] + sums["unmasked_frames"]
        means["masked_share"] = sums["masked_frames"] / max(1.0, total)
        means["hours"] = total / self.hparams.frames_per_second / 3600
        return means
