"""Stages of an experiment: folders, references, and what is refused."""

from pathlib import Path

import pytest

from s3router.brains.stages import stages_of

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
        "stages:\n"
        "    - {name: one, epochs: 2}\n"
        "    - {name: two, start_mask: one}\n"
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
    assert all(stage["seed"] == 8 for stage in (one, two, three))


def test_a_long_folder_stays_whole(yaml):
    one, *_, last = stages_of(yaml, {"output_folder": LONG})
    assert one["output_folder"] == str(Path(LONG) / "one")
    assert last["output_folder"] == LONG


def test_without_stages_there_is_one(yaml):
    assert stages_of(yaml, "stages: null\nseed: 3") == [
        {"stages": None, "seed": 3}
    ]
