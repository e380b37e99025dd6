"""The clock of a run: short batches count, and stops do not reset it."""

import time

import pytest
from speechbrain.utils.checkpoints import Checkpointer

from s3router.brains.training_clock import TrainingClock


def test_nothing_trained_has_no_mean():
    told = TrainingClock().describe()
    assert told["seconds_per_batch"] is None
    assert told["training_seconds"] == 0
    assert told["peak_memory_bytes"] is None


def test_short_batches_are_not_rounded_away():
    clock = TrainingClock()
    for _ in range(2):
        with clock.batch():
            time.sleep(0.001)
    told = clock.describe()
    assert told["training_seconds"] >= 0.002
    assert told["seconds_per_batch"] == pytest.approx(
        told["training_seconds"] / 2, abs=1e-6
    )


def test_what_is_outside_a_batch_does_not_count():
    clock = TrainingClock()
    with clock.batch():
        pass
    before = clock.seconds
    time.sleep(0.01)
    assert clock.describe()["training_seconds"] == round(before, 6)


def test_a_resumed_clock_goes_on(tmp_path):
    first = TrainingClock()
    with first.batch():
        time.sleep(0.001)
    Checkpointer(tmp_path, {"clock": first}).save_checkpoint()

    second = TrainingClock()
    Checkpointer(tmp_path, {"clock": second}).recover_if_possible()
    assert second.describe()["training_seconds"] > 0
    assert (second.seconds, second.batches) == (first.seconds, 1)
    with second.batch():
        time.sleep(0.001)
    assert second.seconds >= first.seconds + 0.001
    assert second.batches == 2
