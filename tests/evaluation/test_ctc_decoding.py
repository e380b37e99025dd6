"""Training decodes by the device's own function."""

from s3router.evaluation import decoding
from s3router.runtime import decode


def test_one_rule_for_training_and_device():
    assert decoding.greedy_ctc is decode.greedy_ctc
