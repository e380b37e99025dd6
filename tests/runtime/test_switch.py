"""Mode "switch" on a toy whose logits numpy gives; callers in parallel."""

import contextlib
import json
import threading
import time
from dataclasses import replace

import numpy as np
import onnx
import pytest
from toy_bundles import make_toy_bundle, speak
from toy_shared import LAYER, make_shared_bundle, toy_logits

from s3router.errors import FormatError, NotFoundError, SettingError
from s3router.formats.bundle import Bundle
from s3router.runtime import switch as module
from s3router.runtime.providers import TENSORRT
from s3router.runtime.recognizer import Recognizer

MODES = ["fold", "lean", "switch"]
LANGUAGES = {"aa": 9, "bb": 14, "cc": 9}


@pytest.fixture
def toy(tmp_path):
    """Return a fresh bundle of three languages and what is in it."""
    return tmp_path / "b", make_shared_bundle(tmp_path / "b", LANGUAGES)


@pytest.mark.parametrize("mode", MODES)
def test_each_language_as_numpy_has_it(toy, mode):
    folder, truth = toy
    recognizer = Recognizer(folder, "aa", "cpu", threads=1, mode=mode)
    signal = speak([3, 1, 4, 1, 5, 9, 2, 6])
    for code in ("aa", "bb", "cc", "aa", "aa", "cc"):
        recognizer.switch(code)
        expected = toy_logits(truth[code], signal)
        got = recognizer.logits(signal)
        np.testing.assert_allclose(got, expected, atol=1e-4)
        assert recognizer.transcribe(signal).language == code


def test_the_graph_reads_the_buffer_itself(toy):
    recognizer = Recognizer(toy[0], "aa", "cpu", mode="switch")
    session = recognizer.session
    array = session._weights.arrays[f"{LAYER}.weight"]
    value = session._inputs[f"{LAYER}.weight"]
    assert value.data_ptr() == array.ctypes.data
    signal = speak([1, 2])
    array[:] = 0
    got = recognizer.logits(signal)
    np.testing.assert_allclose(got - got[0], 0, atol=1e-6)
    recognizer.switch("bb")
    assert recognizer.session is session
    assert session._inputs[f"{LAYER}.weight"].data_ptr() == array.ctypes.data


@pytest.mark.parametrize("mode", MODES)
def test_a_transcript_is_of_one_language_wholly(toy, mode):
    """Ten callers, recordings of many pieces, and one who switches."""
    folder, _ = toy
    rng = np.random.default_rng(0)
    signals = [speak(rng.integers(-9, 9, 60).tolist()) for _ in range(10)]

    def open_one(code):
        return Recognizer(folder, code, "cpu", 1, 2.0, mode)

    alone = {
        code: [open_one(code).transcribe(s).text for s in signals]
        for code in LANGUAGES
    }
    assert len({text for texts in alone.values() for text in texts}) == 30
    shared, wrong, seen = open_one("aa"), [], set()
    stop, ready = threading.Event(), threading.Barrier(11)

    def call(i):
        ready.wait()
        while not stop.is_set():
            got = shared.transcribe(signals[i])
            seen.add(got.language)
            if got.text != alone[got.language][i]:
                wrong.append((got.language, i))

    threads = [threading.Thread(target=call, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    ready.wait()
    try:
        turn, deadline = 0, time.monotonic() + 30
        while turn < 60 or (len(seen) < 3 and time.monotonic() < deadline):
            shared.switch(["bb", "cc", "aa"][turn % 3])
            turn += 1
            time.sleep(0.002)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert seen == set(LANGUAGES)


def test_a_switch_waits_for_the_last_piece(toy, monkeypatch):
    """Else the next piece would be heard in another language."""
    folder, _ = toy
    recognizer = Recognizer(folder, "aa", "cpu", 1, 2.0, "switch")
    run, order, switching = module.SwitchSession.run, [], []

    def slow(self, samples):
        if not order:
            switcher = threading.Thread(target=recognizer.switch, args=("bb",))
            switcher.start()
            switching.append(switcher)
            switcher.join(0.1)
        order.append(recognizer.language)
        return run(self, samples)

    monkeypatch.setattr(module.SwitchSession, "run", slow)
    assert recognizer.transcribe(speak([1] * 90)).language == "aa"
    switching[0].join()
    assert len(order) > 3 and set(order) == {"aa"}
    assert recognizer.language == "bb"


@pytest.mark.parametrize("damage", ["bb.onnx", "bb.tokens.txt"])
def test_a_failed_switch_keeps_the_old_language(toy, damage):
    folder, truth = toy
    recognizer = Recognizer(folder, "aa", "cpu", mode="switch")
    (folder / damage).write_bytes(b"x")
    with pytest.raises(FormatError, match=damage):
        recognizer.switch("bb")
    signal = speak([3, 1])
    np.testing.assert_allclose(
        recognizer.logits(signal), toy_logits(truth["aa"], signal), atol=1e-4
    )
    assert recognizer.language == "aa"


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_an_interrupted_switch_puts_the_old_language_back(
    toy, monkeypatch, call
):
    folder, truth = toy
    recognizer = Recognizer(folder, "aa", "cpu", mode="switch")
    session, calls = recognizer.session, []
    real, masked = session._to_device, session._weights.mask

    def interrupt(function, argument):
        calls.append(function)
        if len(calls) == call:
            raise KeyboardInterrupt
        return function(argument)

    def mask_then_interrupt(bits):
        changed = masked(bits)
        interrupt(len, bits)
        return changed

    monkeypatch.setattr(session, "_to_device", lambda a: interrupt(real, a))
    monkeypatch.setattr(session._weights, "mask", mask_then_interrupt)
    signal = speak([3, 1])
    if call < 4:  # two arrays of the head, then the weights
        with pytest.raises(KeyboardInterrupt):
            recognizer.switch("bb")
    code = "aa" if call < 4 else "bb"
    if call == 4:
        recognizer.switch("bb")
    assert recognizer.language == code
    np.testing.assert_allclose(
        recognizer.logits(signal), toy_logits(truth[code], signal), atol=1e-4
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_bundle_that_was_replaced_meanwhile(tmp_path, toy, mode):
    folder, _ = toy
    recognizer = Recognizer(folder, "aa", "cpu", mode=mode)
    recognizer.switch("bb")
    other = make_shared_bundle(tmp_path / "other", {"bb": 9, "aa": 14})
    assert set(other) == {"aa", "bb"}
    for path in (tmp_path / "other").iterdir():
        path.replace(folder / path.name)
    with pytest.raises(FormatError, match="altered"):
        recognizer.switch("aa")
    assert recognizer.language == "bb"


def test_tokens_of_another_head(toy):
    folder, _ = toy
    tokens = (folder / "aa.tokens.txt").read_text()
    (folder / "bb.tokens.txt").write_text(tokens)
    Bundle.load(folder).save(folder)
    recognizer = Recognizer(folder, "aa", "cpu", mode="switch")
    with pytest.raises(FormatError, match="9 tokens, its graph 14"):
        recognizer.switch("bb")


@pytest.mark.parametrize("damage", ["remove", "alter"])
def test_a_damaged_runner(toy, damage):
    path = toy[0] / "runner.onnx"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.unlink()
    if damage == "alter":
        path.write_bytes(content)
    with pytest.raises((FormatError, NotFoundError), match="runner.onnx"):
        Recognizer(toy[0], "aa", "cpu", mode="switch")
    assert Recognizer(toy[0], "aa", "cpu").language == "aa"


def test_no_runner(tmp_path, toy):
    bundle = Bundle.load(toy[0])
    bundle.runner = None
    bundle.save(toy[0])
    with pytest.raises(SettingError, match="mode switch.*none of its lang"):
        Recognizer(toy[0], "aa", "cpu", mode="switch")
    for change, why in (
        ({"precision": "fp16"}, "of precision fp16"),
        ({"profile": "sherpa-onnx"}, "made for sherpa-onnx"),
    ):
        replace(bundle, **change).save(toy[0])
        with pytest.raises(SettingError, match=f"mode switch.*{why}"):
            Recognizer(toy[0], "aa", "cpu", mode="switch")
    plain = make_toy_bundle(tmp_path / "plain")
    with pytest.raises(SettingError, match="mode switch.*layout shared"):
        Recognizer(plain, mode="switch")


def test_a_language_that_is_no_mask(toy, monkeypatch):
    recognizer = Recognizer(toy[0], "aa", "cpu", mode="switch")
    del recognizer.session._languages["bb"]
    with pytest.raises(SettingError, match="bb is no mask .*mode fold"):
        recognizer.switch("bb")
    assert recognizer.language == "aa"


@pytest.mark.parametrize("backbone", [None, "../backbone.bin"])
def test_a_runner_that_does_not_say_where(toy, backbone):
    """Or says it of a file that is not the bundle's."""
    model = onnx.load(toy[0] / "runner.onnx")
    (said,) = model.metadata_props
    places = json.loads(said.value)
    places["backbone"] = backbone
    said.value = json.dumps(places) if backbone else "{"
    onnx.save(model, toy[0] / "runner.onnx")
    Bundle.load(toy[0]).save(toy[0])
    with pytest.raises(FormatError, match="where its inputs lie"):
        Recognizer(toy[0], "aa", "cpu", mode="switch")


def test_tensorrt_is_refused(toy, monkeypatch):
    real = module.open_shared

    def tensorrt(*arguments):
        return replace(real(*arguments), provider=TENSORRT)

    monkeypatch.setattr(module, "open_shared", tensorrt)
    with pytest.raises(SettingError, match="mode switch.*tensorrt.*cuda"):
        Recognizer(toy[0], "aa", mode="switch")


def test_on_a_device_the_changed_weights_are_sent_anew(toy, monkeypatch):
    """CUDA is played by a copy that only `update_inplace` changes."""
    sent, real = [], module.import_onnxruntime().OrtValue

    class OnDevice:
        def __init__(self, array):
            self.value = real.ortvalue_from_numpy(array.copy())

        def update_inplace(self, array):
            sent.append(array.shape)
            self.value.update_inplace(array)

    folder, truth = toy
    recognizer = Recognizer(folder, "aa", "cpu", mode="switch")
    session = recognizer.session
    held = {n: OnDevice(a) for n, a in session._weights.arrays.items()}
    session.provider = module.CUDA
    session._inputs = held
    monkeypatch.setattr(
        session, "_to_device", lambda a: real.ortvalue_from_numpy(a)
    )
    recognizer.switch("bb")
    session._inputs = {n: v.value for n, v in held.items()}
    signal = speak([3, 1])
    np.testing.assert_allclose(
        recognizer.logits(signal), toy_logits(truth["bb"], signal), atol=1e-4
    )
    assert sent == [(40, 40)]


def test_many_switch_at_once(toy):
    folder, truth = toy
    recognizer = Recognizer(folder, "aa", "cpu", 1, mode="switch")

    def change(code):
        for _ in range(20):
            recognizer.switch(code)

    with contextlib.ExitStack() as stack:
        for code in (*LANGUAGES, *LANGUAGES):
            thread = threading.Thread(target=change, args=(code,))
            thread.start()
            stack.callback(thread.join)
    signal = speak([3, 1])
    expected = toy_logits(truth[recognizer.language], signal)
    np.testing.assert_allclose(recognizer.logits(signal), expected, atol=1e-4)
