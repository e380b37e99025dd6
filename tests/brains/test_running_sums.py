"""Sums of an epoch through a checkpoint."""

import pytest
import torch

from s3router.brains.running_sums import RunningSums


def test_a_loaded_state_goes_on_only_within_an_epoch(tmp_path):
    sums = RunningSums()
    sums.start()
    # In 64 bits: a million steps of a third do not drift.
    for _ in range(3):
        sums.add(loss=torch.tensor(1 / 3), frames=7)
    sums._save(tmp_path / "s.json")
    within, behind = RunningSums(), RunningSums()
    within._load(tmp_path / "s.json", end_of_epoch=False)
    within.start()
    assert within.totals() == sums.totals()
    assert within.totals()["loss"] == pytest.approx(1.0, rel=1e-7)
    within.start()  # the next epoch
    assert within.totals() == {}
    behind._load(tmp_path / "s.json", end_of_epoch=True)
    behind.start()
    assert behind.totals() == {}


def test_sums_keep_no_graph():
    sums = RunningSums()
    weight = torch.ones(2, requires_grad=True)
    sums.add(loss=weight.sum())
    assert not sums._sums["loss"].requires_grad
    sums.gather("cpu")  # one process: nothing to gather
    assert sums.totals() == {"loss": 2.0}
