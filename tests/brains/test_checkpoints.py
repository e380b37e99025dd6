"""A checkpoint whose saving was cut short is not there."""

import pytest
import torch
from speechbrain.utils.checkpoints import Checkpointer

from s3router.brains.checkpoints import WholeCheckpointer


class Killed(torch.nn.Module):
    """Cannot be saved, as if the process ended right then."""

    def state_dict(self, *args, **kwargs):
        raise KeyboardInterrupt


def interrupted(kind, folder):
    """Return a fresh checkpointer after one good and one cut save."""
    layer = torch.nn.Linear(2, 2)
    kind(folder, {"a": layer}).save_checkpoint(meta={"step": 1})
    both = {"a": layer, "b": Killed()}
    with pytest.raises(KeyboardInterrupt):
        kind(folder, both).save_checkpoint(meta={"step": 2})
    return kind(folder, {"a": torch.nn.Linear(2, 2)}), layer


def test_the_last_whole_checkpoint_is_found(tmp_path):
    checkpointer, layer = interrupted(WholeCheckpointer, tmp_path)
    found = checkpointer.recover_if_possible()
    assert found.meta["step"] == 1
    assert checkpointer.recoverables["a"].weight.equal(layer.weight)


def test_speechbrains_own_would_take_the_cut_one(tmp_path):
    checkpointer, _ = interrupted(Checkpointer, tmp_path)
    assert checkpointer.find_checkpoint().meta["step"] == 2


def test_ends_of_epochs_are_told_from_middles(tmp_path):
    checkpointer = WholeCheckpointer(tmp_path, {"a": torch.nn.Linear(2, 2)})
    checkpointer.save_checkpoint(end_of_epoch=False)
    assert checkpointer.find_checkpoint().meta["end-of-epoch"] is False
    checkpointer.save_and_keep_only(meta={"step": 2}, num_to_keep=1)
    (left,) = checkpointer.list_checkpoints()
    assert left.meta["step"] == 2 and left.meta["end-of-epoch"] is True
