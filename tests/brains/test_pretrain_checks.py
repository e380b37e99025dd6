"""What cannot run is said before hours are spent, in one line."""

import numpy as np
import pytest
import torch
from pretrain_toys import settings, small_config
from speechbrain.utils.checkpoints import Checkpointer

from s3router.brains.pretrain_checks import (
    check_amount,
    check_checkpoint,
    check_frames,
    check_iterations,
    check_record,
    check_settings,
)
from s3router.errors import (
    DataError,
    MismatchError,
    MissingDependencyError,
    SettingError,
)
from s3router.formats.files import write_json

MFCC = {"units": 8, "epochs": 1, "of": "mfcc"}
AUTO = {"units": 8, "epochs": 1, "of": "auto"}
FAST = {
    "conv_stride": (5, 2, 2, 2, 2, 2),
    "conv_kernel": (10, 3, 3, 3, 3, 2),
    "conv_dim": (8,) * 6,
}


def test_settings_that_can_run_pass(tmp_path):
    check_settings(settings(tmp_path))
    check_settings(settings(tmp_path, objective="wav2vec2", iterations=[]))
    check_settings(settings(tmp_path, snapshot_hours=[0.5, 2]))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"objective": "wav2vec"}, "did you mean 'wav2vec2'"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"span_share": 1.5}, "span_share is a share, not 1.5"),
        ({"degraded_versions": -1}, "degraded_versions must be 0 or more"),
        ({"crop_seconds": 0.02}, r"crop_seconds is 0.02, less than a frame"),
        ({"batch_seconds": -1}, "batch_seconds must be above 0"),
        ({"snapshot_hours": ["2h"]}, "'2h' is no time in hours"),
        ({"encoder_config": small_config(**FAST)}, "multiple of 20 ms"),
        (
            {"iterations": [MFCC, AUTO], "known_sentences": 1},
            "known_sentences must be 2 or more",
        ),
        (
            {"iterations": [{**MFCC, "keep_phones": True}]},
            "keep_phones goes with units of a layer",
        ),
    ],
)
def test_settings_that_cannot_run_are_refused(tmp_path, changes, line):
    with pytest.raises(SettingError, match=line):
        check_settings(settings(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"codes": 1}, "codes must be 2 or more, not 1"),
        ({"distractors": 0}, "distractors must be 1 or more"),
        ({"epochs": None}, "epochs"),
        ({"codebooks": 3}, "width 16 is no multiple of 3 codebooks"),
        ({"temperature": 0.0}, "temperature is a number above 0"),
        ({"code_temperature": [2.0]}, "code_temperature two of them"),
    ],
)
def test_contrasts_that_cannot_run_are_refused(tmp_path, changes, line):
    values = settings(tmp_path, objective="wav2vec2")
    values["contrastive"] = {**values["contrastive"], **changes}
    if changes == {"epochs": None}:
        del values["contrastive"]["epochs"]
    with pytest.raises(SettingError, match=line):
        check_settings(values)


@pytest.mark.parametrize(
    ("iterations", "line"),
    [
        ([], "of: mfcc"),
        ([{"units": 8, "epochs": 1, "of": 2}], "of: mfcc"),
        ([MFCC, {"units": 8, "epochs": 1, "of": 9}], "a layer, 0 to 2"),
        ([MFCC, {"units": 8, "epochs": 1, "of": "last"}], "units of 'last'"),
        ([{**MFCC, "units": 1}], "2 or more units"),
        ([{**MFCC, "epochs": 0}], "1 or more epochs"),
        ([{**MFCC, "units": 70000}], "65535 can be told apart"),
    ],
)
def test_iterations_that_cannot_run_are_refused(tmp_path, iterations, line):
    with pytest.raises(SettingError, match=line):
        check_iterations(settings(tmp_path, iterations=iterations))


def test_iterations_that_can_run_pass(tmp_path):
    later = [{**MFCC, "of": of} for of in ("auto", 0, 2, "mfcc")]
    check_iterations(settings(tmp_path, iterations=[MFCC, *later]))


def test_what_directions_need_is_asked_for_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    guided = settings(tmp_path, iterations=[MFCC, AUTO])
    with pytest.raises(MissingDependencyError, match="phone_directions to 0"):
        check_settings(guided)
    layer = {**AUTO, "of": 1}
    plain = settings(tmp_path, iterations=[MFCC, layer])
    check_settings(plain)
    with pytest.raises(MissingDependencyError):
        check_settings({**plain, "phone_directions": 3})
    check_settings(settings(tmp_path, phone_directions=3))  # MFCCs only


def test_more_units_than_frames_are_refused_before_training(tmp_path):
    values = settings(tmp_path, iterations=[{**MFCC, "units": 50}])
    check_amount(np.array([20, 30]), values)
    with pytest.raises(DataError, match="49 frames cannot make 50 units"):
        check_amount(np.array([20, 29]), values)
    with pytest.raises(DataError, match="40 frames .* unit_fit_frames"):
        check_amount(np.array([100]), {**values, "unit_fit_frames": 40})
    check_amount(np.array([3]), {**values, "objective": "wav2vec2"})


def test_a_file_made_with_other_settings_is_refused(tmp_path):
    record = tmp_path / "features_0.f16.json"
    expected = {"hop": 640, "front_end": "sha256:ab"}
    check_record(record, expected, "it")  # from before it was written
    write_json(record, {"hop": 320, "front_end": "sha256:ab"})
    with pytest.raises(MismatchError) as caught:
        check_record(record, expected, "features_*")
    line = str(caught.value)
    for part in ("features_0.f16 was", "hop 320", "640", "delete features_*"):
        assert part in line
    assert "\n" not in line
    write_json(record, {"hop": 640, "more": 1})
    check_record(record, expected, "it")


def test_other_numbers_of_frames_are_refused(tmp_path):
    check_frames(tmp_path / "f", np.array([2, 3]), [2, 3], "it")
    with pytest.raises(MismatchError, match="5 frames of 2 clips, .* 7 of 2"):
        check_frames(tmp_path / "f", np.array([2, 3]), [3, 4], "it")
    with pytest.raises(MismatchError, match="of 3 with this encoder"):
        check_frames(tmp_path / "f", np.array([2, 3]), [2, 3, 1], "it")


def test_a_checkpoint_is_compared_by_name_and_shape(tmp_path):
    model = torch.nn.Linear(3, 2)
    checkpointer = Checkpointer(tmp_path, {"model": model})
    check_checkpoint(checkpointer, model)  # none is there yet
    checkpointer.save_checkpoint()
    check_checkpoint(checkpointer, torch.nn.Linear(3, 2))
    with pytest.raises(MismatchError, match=r"bias has \(2,\), now \(4,\)"):
        check_checkpoint(checkpointer, torch.nn.Linear(3, 4))
    with pytest.raises(MismatchError, match=r"bias has \(2,\), now nothing"):
        check_checkpoint(checkpointer, torch.nn.Linear(3, 2, bias=False))
