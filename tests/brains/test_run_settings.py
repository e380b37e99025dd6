"""What a run was started with, and who may go on with it."""

import pytest

from s3router.brains.run_settings import (
    SETTINGS_FILE,
    changed_setting,
    hold_settings,
    settings_of,
)
from s3router.errors import SettingError

YAML = """
output_folder: out
data_folder: /data
lr: 1.0e-2
sparsity: 0.5
start_mask: null
schedule: !name:math.floor
    final: 0.05
"""


class Checkpointer:
    def __init__(self, found):
        self.found = found

    def find_checkpoint(self):
        return self.found


@pytest.fixture
def yaml(tmp_path):
    file = tmp_path / "one.yaml"
    file.write_text(YAML)
    return file


def hold(yaml, folder, trained, **given):
    hparams = {
        "output_folder": str(folder),
        "checkpointer": Checkpointer("CKPT" if trained else None),
    }
    folder.mkdir(exist_ok=True)
    hold_settings(str(yaml), given, hparams)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"sparsity": 0.4}, "sparsity 0.5, and not 0.4"),
        ({"sparsity": {"feed_forward": 0.5}}, "sparsity 0.5, and not {"),
        ({"start_mask": "other"}, "start_mask None, and not 'other'"),
        ({"schedule": {"final": 0.1}}, "schedule {"),
    ],
)
def test_a_run_goes_on_with_its_own_settings_only(yaml, tmp_path, given, told):
    folder = tmp_path / "run"
    hold(yaml, folder, trained=False)
    hold(yaml, folder, trained=True)
    with pytest.raises(SettingError, match="was started with") as caught:
        hold(yaml, folder, trained=True, **given)
    assert told in str(caught.value)
    # Refusing changes nothing, and where nothing is trained nothing counts.
    hold(yaml, folder, trained=True)
    hold(yaml, folder, trained=False, **given)
    hold(yaml, folder, trained=True, **given)


def test_comments_places_and_other_versions_do_not_count(yaml, tmp_path):
    folder = tmp_path / "run"
    hold(yaml, folder, trained=False)
    yaml.write_text(
        YAML.replace("0.5", "0.50  # half").replace("/data", "/disk2")
        + "    start: 0.0\nnew_setting: 3\n"
    )
    hold(yaml, folder, trained=True)
    (folder / SETTINGS_FILE).unlink()
    hold(yaml, folder, trained=True, sparsity=0.1)


def test_an_experiment_may_be_moved(yaml, tmp_path):
    now = [
        settings_of(
            str(yaml),
            {"start_mask": f"{place}/tuned/subnetwork"},
            tmp_path / place / stage,
        )
        for place in (tmp_path / "a", tmp_path / "b")
        for stage in ("", "round_1")
    ]
    assert now[0] == now[1] == now[2] == now[3]
    assert changed_setting(tmp_path / "none.json", now[0]) is None
