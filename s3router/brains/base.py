"""The training loop of every method: a SpeechBrain Brain around a `Method`.

It gives each parameter group its own optimizer, tells the method about every
optimizer step, refuses to train scores that get no gradient, and keeps
checkpoints without the encoder. What is computed per batch is the task's
business: see `ctc.py`.
"""

from contextlib import ExitStack

import speechbrain as sb
import torch
from speechbrain.utils.epoch_loop import EpochCounter
from torch.utils.data import DataLoader

from s3router.brains.random_state import RandomState
from s3router.brains.training_clock import TrainingClock
from s3router.errors import SettingError
from s3router.methods.base import Method


class SubnetworkBrain(sb.Brain):
    """Trains what a method trains, on one task.

    Needs these keys in `hparams`: `opt_class` (a factory), `learning_rates`
    (group to rate; the head is the group `head`), `schedule` (a function of
    progress, see `schedule.py`), `epoch_counter`, `validate_every` (epochs),
    `train_loggers` (SpeechBrain loggers).

    Arguments
    ---------
    method : Method
        Already attached to the encoder, so that scores have their final
        initial values before any optimizer copies them.
    head : torch.nn.Module
        The head, trained under every method.
    *args, **kwargs
        Of `speechbrain.Brain`.
    """

    def __init__(
        self, method: Method, head: torch.nn.Module, *args, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        self.method = method
        self.head = head
        self.random_state = RandomState()
        self.clock = TrainingClock()
        if self.checkpointer is not None:
            self.checkpointer.add_recoverables(
                {
                    "method": method,
                    "head": head,
                    "epoch_counter": self.hparams.epoch_counter,
                    "random_state": self.random_state,
                    "clock": self.clock,
                }
            )
        self._total_steps = 1
        self._gradients_checked = False
        self._step_numbers: list[dict[str, float]] = []

    def parameter_groups(self) -> dict[str, list[torch.nn.Parameter]]:
        """Return the method's groups and the head's, by name."""
        return {
            **self.method.parameter_groups(),
            "head": list(self.head.parameters()),
        }

    def init_optimizers(self) -> None:
        """Give each parameter group an optimizer of its own.

        Separate optimizers, because SpeechBrain clips the first group of an
        optimizer only, and so that the head's gradient norm does not decide
        how far scores move.
        """
        rates = self.hparams.learning_rates
        self.optimizers_dict = {}
        for group, parameters in self.parameter_groups().items():
            if group not in rates:
                raise SettingError(
                    f"method {self.method.name!r} trains the group "
                    f"{group!r}, for which learning_rates has no entry; "
                    f"it has {', '.join(rates)}"
                )
            optimizer = self.hparams.opt_class(parameters, lr=rates[group])
            self.optimizers_dict[group] = optimizer
            if self.checkpointer is not None:
                self.checkpointer.add_recoverable(
                    f"optimizer_{group}", optimizer
                )

    def on_fit_start(self) -> None:
        """Recover a checkpoint, or let the method look at the data first."""
        self.method.plan(self._total_steps)
        super().on_fit_start()
        self.random_state.apply(end_of_epoch=True)
        if self.optimizer_step == 0:
            # Nothing hidden and nothing dropped, whatever ran before.
            self.modules.eval()
            self.method.before_fit(
                lambda: iter(self._train_loader), self._loss_of
            )
        self.clock.start()

    def _loss_of(self, batch: object) -> torch.Tensor:
        with self.training_ctx:
            outputs = self.compute_forward(batch, sb.Stage.TRAIN)
            return self.compute_objectives(outputs, batch, sb.Stage.TRAIN)

    def fit(
        self,
        epoch_counter: EpochCounter,
        train_set: DataLoader,
        *args,
        **kwargs,
    ) -> None:
        """Fit as SpeechBrain does; the train set is already a loader.

        Arguments
        ---------
        epoch_counter : speechbrain.utils.epoch_loop.EpochCounter
            Its limit and the loader's length give the number of steps.
        train_set : torch.utils.data.DataLoader
            Made by `make_dataloader`, so that its length is known.
        *args, **kwargs
            Of `speechbrain.Brain.fit`.
        """
        self._train_loader = train_set
        # SpeechBrain leaves what remains of an epoch without a step.
        steps = len(train_set) // self.grad_accumulation_factor
        self._total_steps = max(1, steps * epoch_counter.limit)
        super().fit(epoch_counter, train_set, *args, **kwargs)
        # Before the best checkpoint is loaded, which ends earlier.
        self.spent = {
            "optimizer_steps": self.optimizer_step,
            **self.clock.describe(),
        }

    def fit_batch(self, batch: object) -> torch.Tensor:
        """Fit one batch, and time it."""
        with self.clock.batch():
            return super().fit_batch(batch)

    def on_fit_batch_start(self, batch: object, should_step: bool) -> None:
        """Put a recovered state of the random generators in place."""
        self.random_state.apply(end_of_epoch=False)

    def optimizers_step(self) -> None:
        """Step all optimizers, then the method."""
        if not self._gradients_checked:
            self._check_gradients_arrive()
            self._gradients_checked = True
        factor = self.hparams.schedule(self.optimizer_step / self._total_steps)
        for group, optimizer in self.optimizers_dict.items():
            rate = self.hparams.learning_rates[group] * factor
            optimizer.param_groups[0]["lr"] = rate
        super().optimizers_step()
        self._step_numbers.append(self.method.after_step(self.optimizer_step))

    def _check_gradients_arrive(self) -> None:
        # A head alone lets the loss fall, so dead scores go unnoticed.
        for group, parameters in self.parameter_groups().items():
            dead = [p for p in parameters if p.grad is None]
            if dead:
                raise SettingError(
                    f"{len(dead)} of {len(parameters)} tensors of the group "
                    f"{group!r} got no gradient in the first step, so they "
                    f"would never train; layer drop must be 0 and the "
                    f"encoder must not run under no_grad"
                )
            if not any(p.grad.count_nonzero() for p in parameters):
                raise SettingError(
                    f"all gradients of the group {group!r} are zero in the "
                    f"first step, so it would never train; with scores, "
                    f"check their init (a score of 0 has no gradient)"
                )

    def step_statistics(self) -> dict[str, float]:
        """Return the mean of what the method reported since the last call."""
        numbers, self._step_numbers = self._step_numbers, []
        keys = {key for entry in numbers for key in entry}
        return {
            key: sum(e[key] for e in numbers if key in e)
            / sum(key in e for e in numbers)
            for key in sorted(keys)
        }

    def _fit_valid(
        self, valid_set: DataLoader, epoch: int, enable: bool
    ) -> None:
        last = epoch == self.hparams.epoch_counter.limit
        if epoch % self.hparams.validate_every == 0 or last:
            with self.method.evaluated():
                super()._fit_valid(valid_set, epoch, enable)

    def evaluate(self, *args, **kwargs) -> float | None:
        """Evaluate as SpeechBrain does, on what would be saved."""
        with ExitStack() as self._evaluation:
            return super().evaluate(*args, **kwargs)

    def on_evaluate_start(self, *args, **kwargs) -> None:
        """Load the best checkpoint, then bring it into its saved form."""
        super().on_evaluate_start(*args, **kwargs)
        self._evaluation.enter_context(self.method.evaluated())

    def log_epoch(self, epoch: int, **stats: dict[str, float]) -> None:
        """Write one stage's numbers to all loggers.

        To be called on all processes: the loggers themselves let only the
        main one write, and wait for each other.

        Arguments
        ---------
        epoch : int
            The epoch.
        **stats : dict
            `train_stats` or `valid_stats`: name to number.
        """
        for logger in self.hparams.train_loggers:
            logger.log_stats(stats_meta={"epoch": epoch}, **stats)

    def save_best(self, meta: dict[str, float], min_key: str) -> None:
        """Checkpoint this epoch; keep the best by a dev measure and the last.

        Arguments
        ---------
        meta : dict
            Measures on the dev set.
        min_key : str
            The measure by which the checkpoint is selected; less is better.
        """
        self.checkpointer.save_and_keep_only(
            meta=meta, min_keys=[min_key], num_to_keep=1
        )
