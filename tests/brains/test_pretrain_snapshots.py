"""Hours from the curves, encoders along the way, leftovers of a kill."""

import json

import pytest
import torch
from pretrain_toys import settings, small_encoder
from transformers import HubertModel

from s3router.brains.pretrain_snapshots import (
    hours_heard,
    hours_seen,
    remove_leftovers,
    save_snapshots,
    snapshots,
    stage_names,
)
from s3router.formats.files import read_json, write_json
from s3router.models.sources import locate


def curve(folder, name, *hours):
    entries = [
        {"epoch": n, "train_hours": h} for n, h in enumerate(hours, start=1)
    ]
    write_json(
        folder / "curves" / f"{name}.json",
        {"format_version": 1, "entries": entries},
    )


def test_hours_are_those_of_the_curves_up_to_a_stage(tmp_path):
    values = settings(tmp_path, iterations=[{}, {}, {}])
    assert hours_seen("iteration_2", values) == 0.0
    curve(tmp_path, "iteration_1", 1.0, 2.0)
    curve(tmp_path, "iteration_2", 0.5)
    curve(tmp_path, "iteration_3", 7.0)  # of an earlier run
    curve(tmp_path, "warmup", 100.0)
    assert hours_seen("iteration_1", values) == 3.0
    assert hours_seen("iteration_2", values) == 3.5
    curve(tmp_path, "contrastive", 4.0)
    other = {**values, "objective": "wav2vec2"}
    assert stage_names(other) == ["contrastive"]
    assert hours_seen("contrastive", other) == 4.0


def test_a_snapshot_is_taken_once_and_never_changed(tmp_path):
    values = settings(tmp_path, snapshot_hours=[0.5, 2, 8])
    encoder = small_encoder()
    save_snapshots(encoder, 0.4, values)
    assert snapshots(tmp_path) == []
    save_snapshots(encoder, 2.5, values)
    assert snapshots(tmp_path) == [("0.5h", 2.5), ("2h", 2.5)]
    weights = (tmp_path / "snapshots" / "2h" / "model.safetensors").read_bytes()
    norm = encoder.encoder.layer_norm.weight
    with torch.no_grad():
        norm += 1
    save_snapshots(encoder, 9.0, values)
    assert snapshots(tmp_path)[-1] == ("8h", 9.0)
    again = (tmp_path / "snapshots" / "2h" / "model.safetensors").read_bytes()
    assert weights == again
    loaded = HubertModel.from_pretrained(tmp_path / "snapshots" / "8h")
    torch.testing.assert_close(
        loaded.encoder.layer_norm.weight.data, norm.data.half().float()
    )
    record = read_json(tmp_path / "snapshots" / "8h" / "snapshot.json")
    assert record == {"format_version": 1, "hours_seen": 9.0}
    assert hours_heard(tmp_path / "snapshots" / "8h") == 9.0


def test_what_an_encoder_has_heard_lies_beside_its_weights(tmp_path):
    assert hours_heard(tmp_path) is None
    entries = [{"epoch": 1, "train_hours": 1.5}, {"epoch": 2}]
    curves = {
        "warmup": {"entries": [{"train_hours": 100.0}]},
        "iteration_1": {"entries": entries},
        "layers_2": {"chosen": 3},
        "iteration_2": {"entries": [{"train_hours": 0.25}]},
    }
    write_json(tmp_path / "curves.json", curves)
    assert hours_heard(tmp_path) == 1.75
    assert hours_heard(locate("tiny")) > 50  # the shipped one keeps its own


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    values = settings(tmp_path)
    work, taken = tmp_path / "work", tmp_path / "snapshots"
    half = ".tmp-0123456789ab-"
    (taken / f"{half}2h").mkdir(parents=True)
    (taken / f"{half}2h" / "config.json").write_text("{}")
    work.mkdir()
    kept = ["features_0.f16", ".hidden", ".tmp-notes", "tmp-0123456789ab-x"]
    for name in [*kept, f"{half}features_1.f16"]:
        (work / name).write_text(json.dumps(name))
    remove_leftovers(values)
    assert sorted(p.name for p in work.iterdir()) == sorted(kept)
    assert not list(taken.iterdir())
    remove_leftovers({**values, "work_folder": str(tmp_path / "none")})


@pytest.mark.parametrize("wanted", [[], [3]])
def test_no_snapshot_that_was_not_asked_for(tmp_path, wanted):
    save_snapshots(
        small_encoder(), 2.0, settings(tmp_path, snapshot_hours=wanted)
    )
    assert not (tmp_path / "snapshots").exists()
