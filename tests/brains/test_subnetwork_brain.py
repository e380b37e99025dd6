"""What the training loop refuses, on a two-layer encoder."""

from contextlib import contextmanager
from functools import partial

import pytest
import torch
from speechbrain.utils.epoch_loop import EpochCounter
from torch import nn

from s3router.brains.base import SubnetworkBrain
from s3router.errors import SettingError
from s3router.methods.base import Method


class OneWeight(Method):
    """Trains one tensor of a toy module; counts the steps."""

    name = "one_weight"

    def __init__(self, used: bool = True, scale: float = 1.0):
        self.weight = nn.Parameter(torch.ones(3))
        self.used, self.scale = used, scale
        self.steps = []

    def prepare(self, encoder):
        pass

    def parameter_groups(self):
        return {"scores": [self.weight]}

    def after_step(self, step):
        self.steps.append(step)
        return {"mask_flips": float(step)}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class ToyBrain(SubnetworkBrain):
    """Squared output of a linear head."""

    def compute_forward(self, batch, stage):
        x = batch
        if self.method.used:
            x = x * (1 + self.method.scale * self.method.weight)
        return self.head(x)

    def compute_objectives(self, predictions, batch, stage):
        return predictions.square().mean()


def make_brain(method, rates=None, accumulation=1, kind=ToyBrain):
    head = nn.Linear(3, 2)
    return kind(
        method=method,
        head=head,
        modules={"head": head},
        hparams={
            "opt_class": partial(torch.optim.SGD),
            "learning_rates": rates or {"scores": 0.1, "head": 0.01},
            "schedule": lambda progress: 1.0 - progress,
            "epoch_counter": EpochCounter(limit=2),
            "validate_every": 1,
            "train_loggers": [],
        },
        run_opts={
            "device": "cpu",
            "grad_accumulation_factor": accumulation,
            "noprogressbar": True,
        },
    )


def loader(batches=4):
    data = [torch.ones(2, 3) for _ in range(batches)]
    return torch.utils.data.DataLoader(data, batch_size=None)


def fit(brain, batches=4, valid=None):
    brain.fit(brain.hparams.epoch_counter, loader(batches), valid)


def test_method_hears_of_every_optimizer_step():
    method = OneWeight()
    brain = make_brain(method, accumulation=2)
    fit(brain, batches=4)
    assert method.steps == [1, 2, 3, 4]
    assert brain.step_statistics() == {"mask_flips": 2.5}


def test_method_knows_the_length_and_shows_its_saved_form():
    class Pruned(OneWeight):
        inside = False
        seen: list = []

        def plan(self, steps):
            self.planned = steps

        @contextmanager
        def evaluated(self):
            self.inside = True
            yield
            self.inside = False

    class Watching(ToyBrain):
        def compute_objectives(self, predictions, batch, stage):
            self.method.seen.append((stage.name, self.method.inside))
            return super().compute_objectives(predictions, batch, stage)

    method = Pruned()
    brain = make_brain(method, kind=Watching, accumulation=2)
    fit(brain, batches=3, valid=loader(1))
    brain.evaluate(loader(1))
    assert method.planned == len(method.steps) == 2
    assert set(method.seen) == {
        ("TRAIN", False),
        ("VALID", True),
        ("TEST", True),
    }
    assert not method.inside


def test_learning_rate_follows_progress():
    brain = make_brain(OneWeight())
    fit(brain, batches=4)
    group = brain.optimizers_dict["scores"].param_groups[0]
    assert group["lr"] == pytest.approx(0.1 * (1 - 7 / 8))


def test_scores_without_gradient_are_refused():
    with pytest.raises(SettingError, match="'scores' got no gradient"):
        fit(make_brain(OneWeight(used=False)))


def test_scores_with_zero_gradient_are_refused():
    with pytest.raises(SettingError, match="'scores' are zero"):
        fit(make_brain(OneWeight(scale=0.0)))


def test_group_without_learning_rate_is_named():
    with pytest.raises(SettingError, match="'scores'.*no entry.*head"):
        fit(make_brain(OneWeight(), rates={"head": 0.1}))
