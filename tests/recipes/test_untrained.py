"""The control without pre-training: another encoder's shape, random weights."""

import subprocess
import sys
from pathlib import Path

import torch

from s3router.brains.pretrain_snapshots import hours_heard
from s3router.models.encoder import load_encoder

SCRIPT = Path(__file__).parents[2] / "recipes" / "pretrain" / "untrained.py"


def make(folder: Path, seed: int) -> dict[str, torch.Tensor]:
    command = [sys.executable, SCRIPT, "tiny", folder, f"--seed={seed}"]
    subprocess.run(command, check=True, capture_output=True)
    return load_encoder(str(folder)).model.state_dict()


def test_it_has_the_shape_and_none_of_the_weights(tmp_path):
    trained = load_encoder("tiny").model.state_dict()
    first = make(tmp_path / "a", 0)
    assert {n: w.shape for n, w in first.items()} == {
        n: w.shape for n, w in trained.items()
    }
    name = "encoder.layers.0.feed_forward.output_dense.weight"
    assert not torch.equal(first[name], trained[name])
    assert hours_heard(tmp_path / "a") == 0.0
    again, other = make(tmp_path / "b", 0), make(tmp_path / "c", 1)
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
