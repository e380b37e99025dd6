"""Which dev rate chooses the checkpoint of a CTC recogniser."""

import pytest
import speechbrain as sb

from s3router.brains.ctc import CTCBrain
from s3router.data.languages import selection_unit


class Validated(CTCBrain):
    """A Brain that has just been validated, and notes how it is saved."""

    def __init__(self, unit: str):
        self.unit = unit
        self.saved: list[tuple[dict, str]] = []

    def rates(self) -> dict[str, float]:
        return {"CER": 40.0, "WER": 90.0}

    def log_epoch(self, epoch, **stats):
        pass

    def save_best(self, meta, min_key):
        self.saved.append((meta, min_key))


@pytest.mark.parametrize(
    ("language", "select_by", "key"),
    [
        ("ar", "auto", "WER"),
        ("ar", "CER", "CER"),
        ("zh-CN", "auto", "CER"),
        ("zh-CN", "WER", "WER"),
    ],
)
def test_checkpoints_are_kept_by_the_rate_asked_for(language, select_by, key):
    brain = Validated(selection_unit(language, select_by))
    brain.on_stage_end(sb.Stage.VALID, 1.0, epoch=3)
    assert brain.saved == [({"CER": 40.0, "WER": 90.0, "epoch": 3}, key)]
