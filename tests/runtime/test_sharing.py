"""Recognisers of one process share what is open, and nothing else."""

import gc

import numpy as np
import pytest
from toy_bundles import speak
from toy_shared import make_shared_bundle, toy_logits

from s3router.formats.bundle import Bundle
from s3router.runtime.recognizer import Recognizer
from s3router.runtime.sharing import _OPEN


@pytest.fixture
def toy(tmp_path):
    """Return a fresh bundle of two languages and what is in it."""
    folder = tmp_path / "b"
    return folder, make_shared_bundle(folder, {"aa": 9, "bb": 9})


@pytest.mark.parametrize("mode", ["fold", "lean", "switch"])
def test_equal_recognizers_have_one_session(toy, mode):
    def open_one(code="aa", threads=1, providers="cpu"):
        return Recognizer(toy[0], code, providers, threads, mode=mode)

    first, same = open_one(), open_one()
    assert first.session.ort is same.session.ort
    others = [open_one(threads=2), open_one(providers=["cpu"])]
    other = Recognizer(toy[0], "aa", "cpu", 1, mode="fold")
    others += [other] if mode != "fold" else [open_one("bb")]
    assert all(x.session.ort is not first.session.ort for x in others)


def test_in_mode_switch_each_has_weights_of_its_own(toy):
    folder, truth = toy
    one = Recognizer(folder, "aa", "cpu", 1, mode="switch")
    two = Recognizer(folder, "aa", "cpu", 1, mode="switch")
    assert one.session.ort is two.session.ort
    two.switch("bb")
    signal = speak([3, -1, 4])
    for recognizer, code in ((one, "aa"), (two, "bb")):
        expected = toy_logits(truth[code], signal)
        got = recognizer.logits(signal)
        np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.parametrize("mode", ["fold", "lean", "switch"])
def test_other_weights_are_another_session(toy, mode):
    """Under graphs that are equal, byte for byte."""
    folder, truth = toy
    first = Recognizer(folder, "aa", "cpu", 1, mode=mode)
    path = folder / "backbone.bin"
    content = np.frombuffer(path.read_bytes(), np.float32)
    # Not in place: the first has it mapped.
    path.unlink()
    path.write_bytes((2 * content).tobytes())
    Bundle.load(folder).save(folder)
    second = Recognizer(folder, "aa", "cpu", 1, mode=mode)
    signal, own = speak([3, -1, 4]), truth["aa"]
    for recognizer, factor in ((first, 1), (second, 2)):
        changed = {**own, "weight": factor * own["weight"]}
        np.testing.assert_allclose(
            recognizer.logits(signal), toy_logits(changed, signal), atol=1e-4
        )


@pytest.mark.parametrize("mode", ["fold", "lean", "switch"])
def test_what_nobody_holds_is_closed(toy, mode):
    gc.collect()
    before = len(_OPEN)
    recognizer = Recognizer(toy[0], "aa", "cpu", 1, mode=mode)
    assert len(_OPEN) == before + 1
    del recognizer
    gc.collect()
    assert len(_OPEN) == before
