"""Stages of an experiment: folders, references, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from s3router.brains.stages import (
    check_stages,
    is_finished,
    mark_finished,
    stages_of,
)
from s3router.errors import SettingError
from s3router.formats.subnetwork import Subnetwork
from s3router.formats.subnetwork_config import REQUIRED

ROOT = Path(__file__).resolve().parents[2]
LONG = "/tmp/" + "/".join(["a_folder_whose_name_is_not_short"] * 6)


@pytest.fixture
def yaml(tmp_path) -> str:
    path = tmp_path / "staged.yaml"
    path.write_text(
        "seed: 7\n"
        "language: zh\n"
        "base: !ref runs/<language>\n"
        "output_folder: !ref <base>/<seed>\n"
        "result_file: !ref <output_folder>/result.json\n"
        "unbuilt: !new:no.such.Class\n"
        "epochs: 9\n"
        "start_mask: null\n"
        "sparsity: 0.6\n"
        "evaluate_test: True\n"
        "save_folder: !ref <output_folder>/save\n"
        "stages:\n"
        "    - {name: one, epochs: 2}\n"
        "    - {name: two, start_mask: one, of_sparsity: 0.5}\n"
        "    - {name: three, start_mask: two}\n"
    )
    return str(path)


def test_folders_follow_references_without_building_objects(yaml):
    one, two, three = stages_of(yaml, "seed: 8")
    assert one["output_folder"] == "runs/zh/8/one"
    assert one["epochs"] == 2 and "epochs" not in two
    assert two["start_mask"] == "runs/zh/8/one/subnetwork"
    assert two["result_file"] == "runs/zh/8/two/result.json"
    assert three["start_mask"] == "runs/zh/8/two/subnetwork"
    assert three["output_folder"] == "runs/zh/8"
    assert "result_file" not in three
    assert two["sparsity"] == 0.3 and "sparsity" not in three
    assert one["evaluate_test"] is two["evaluate_test"] is False
    assert "evaluate_test" not in three
    assert all(stage["seed"] == 8 for stage in (one, two, three))


@pytest.mark.parametrize(("epochs", "share"), [(15, 3), (7, 1), (1, 1)])
def test_a_share_of_the_epochs_is_whole(yaml, epochs, share):
    stages = "[{name: short, of_epochs: 0.2}, {name: long}]"
    path = Path(yaml)
    path.write_text(path.read_text() + f"number_of_epochs: {epochs}\n")
    short, long = stages_of(yaml, f"stages: {stages}")
    assert short["number_of_epochs"] == share
    assert "number_of_epochs" not in long


def test_a_share_of_what_is_no_number(yaml):
    with pytest.raises(
        SettingError, match="of_sparsity is a share of sparsity"
    ):
        stages_of(yaml, "sparsity: {attention: 0.3}")


def test_a_long_folder_stays_whole(yaml):
    one, *_, last = stages_of(yaml, {"output_folder": LONG})
    assert one["output_folder"] == str(Path(LONG) / "one")
    assert last["output_folder"] == LONG


def test_without_stages_there_is_one(yaml):
    assert stages_of(yaml, "stages: null\nseed: 3") == [
        {"stages": None, "seed": 3}
    ]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("epochs: 5", "the stage 'one' sets it to 2"),
        ("save_folder: here", "every stage has its own"),
        ("stages: 3", "is no list of blocks"),
        ("stages: [{name: save}]", "cannot be the name"),
        ("stages: [{name: ..}]", "cannot be the name"),
        ("stages: [{name: a, start_mask: a}]", "does not come before it"),
        ("stages: [{name: a, of_sparsity: 1.5}]", "a number from 0 to 1"),
        ("stages: [{name: a, of_epochs: half}]", "a number from 0 to 1"),
        (
            "stages: [{name: a, start_mask: b}, {name: b}]",
            "does not come before it",
        ),
    ],
)
def test_what_cannot_be_staged_is_said(yaml, overrides, message):
    with pytest.raises(SettingError, match=message):
        stages_of(yaml, overrides)


def test_a_stage_that_ended_with_other_settings_is_not_passed_over(
    yaml, tmp_path
):
    config = dict.fromkeys(REQUIRED, "x")
    head = {"weight": np.zeros((2, 2), np.float32)}
    output = tmp_path / "out"
    one, *_ = stages_of(yaml, {"output_folder": str(output)})
    assert not is_finished(yaml, one)
    Subnetwork(config, {}, head, ["<blk>", "<unk>"]).save(
        output / "one" / "subnetwork"
    )
    mark_finished(yaml, one)
    assert is_finished(yaml, one)
    with pytest.raises(SettingError, match="has ended with other settings"):
        is_finished(yaml, {**one, "language": "ar"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pattern": "2:4"}, "use scope layer"),
        ({"number_of_epochs": 0}, "number_of_epochs is 0"),
        ({"lr_weights": "abc"}, "lr_weights is 'abc'"),
        ({}, None),
    ],
)
def test_what_a_later_stage_cannot_be_is_told_first(given, message):
    """The dense model of one-shot pruning is not trained for nothing."""
    path = str(ROOT / "hparams/zh_omp.yaml")
    given = {"data_folder": "/data", "sparsity": 0.5, **given}
    stages = stages_of(path, given)
    if message is None:
        check_stages(path, stages)
    else:
        with pytest.raises(SettingError, match=message):
            check_stages(path, stages)


def test_a_stage_of_another_name_is_told(yaml):
    stages = "[{name: tuned}, {name: pruned, start_mask: tund}]"
    with pytest.raises(SettingError, match="did you mean 'tuned'"):
        stages_of(yaml, f"stages: {stages}")
