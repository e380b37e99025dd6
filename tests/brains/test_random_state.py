"""Random generators in a checkpoint."""

import random

import numpy as np
import torch

from s3router.brains.random_state import RandomState


def draw() -> tuple:
    return (
        torch.rand(3).tolist(),
        random.random(),
        np.random.rand(3).tolist(),
    )


def test_loaded_state_continues_the_sequence(tmp_path):
    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    draw()
    RandomState()._save(tmp_path / "state")
    expected = draw()
    draw()
    state = RandomState()
    state._load(tmp_path / "state", end_of_epoch=False)
    state.apply(end_of_epoch=True)
    assert draw() != expected, "applied at the wrong moment"
    state.apply(end_of_epoch=False)
    assert draw() == expected
    state.apply(end_of_epoch=False)
    assert draw() != expected, "applied twice"
