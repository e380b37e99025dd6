"""What people get wrong: each gives one clear line, or works, in each mode."""

import json

import numpy as np
import pytest
import soundfile
from toy_bundles import speak
from toy_shared import make_shared_bundle

from s3router.errors import (
    DataError,
    FormatError,
    NotFoundError,
    S3RouterError,
    SettingError,
)
from s3router.formats import bundle as manifest
from s3router.formats.bundle import FORMAT_VERSION
from s3router.runtime.providers import count_cuda_devices
from s3router.runtime.recognizer import Recognizer

MODES = ["fold", "lean", "switch"]
SAID = [3, -2, 5, 0, 4, -6, 7, 1]


@pytest.fixture(params=MODES)
def mode(request):
    """Return each mode."""
    return request.param


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a bundle of two languages, not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "b"
    make_shared_bundle(folder, {"aa": 9, "bb": 14})
    return folder


@pytest.fixture
def fresh(tmp_path):
    """Return such a bundle to be damaged."""
    make_shared_bundle(tmp_path / "b", {"aa": 9, "bb": 14})
    return tmp_path / "b"


def open_one(folder, mode, **settings):
    return Recognizer(folder, "aa", threads=1, mode=mode, **settings)


def refuse(error, words, call, *arguments, **settings):
    """Check that a call fails with one line that has these words."""
    with pytest.raises(error, match=words) as caught:
        call(*arguments, **settings)
    assert isinstance(caught.value, S3RouterError)
    assert "\n" not in str(caught.value)


def edit(folder, change):
    """Change a manifest and seal it again."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    content["checksum"] = manifest._checksum(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["aa.onnx", "aa.tokens.txt", "backbone.bin"])
@pytest.mark.parametrize("damage", ["missing", "altered", "truncated"])
def test_a_file_of_the_bundle(fresh, mode, name, damage):
    path = fresh / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "altered":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    if damage == "truncated":
        path.write_bytes(content[:-1])
    words = {"missing": "lacks a file"}.get(damage, damage)
    kind = NotFoundError if damage == "missing" else FormatError
    refuse(kind, f"{words}.*{name}|{name}.* {words}", open_one, fresh, mode)


def test_a_newer_version(fresh, mode):
    version = FORMAT_VERSION + 1
    edit(fresh, lambda content: content.update(format_version=version))
    words = f"format version {version}.*install the s3router that wrote it"
    refuse(FormatError, words, open_one, fresh, mode)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../b"])
@pytest.mark.parametrize("key", ["runner", "language"])
def test_a_path_that_leaves_the_folder(fresh, mode, key, path):
    def lead_out(content):
        content["files"][path] = content["files"]["aa.onnx"]
        if key == "runner":
            content["runner"] = path
        else:
            content["languages"]["aa"]["model"] = path

    edit(fresh, lead_out)
    refuse(FormatError, "outside the bundle", open_one, fresh, mode)


def test_a_runner_that_is_not_listed(fresh, mode):
    edit(fresh, lambda content: content.update(runner="../runner.onnx"))
    refuse(FormatError, "list of files lacks", open_one, fresh, mode)


def test_an_unknown_language(whole, mode):
    words = "unknown language 'xx'.*aa, bb"
    refuse(SettingError, words, Recognizer, whole, "xx", mode=mode)
    recognizer = open_one(whole, mode)
    refuse(SettingError, words, recognizer.switch, "xx")
    assert recognizer.language == "aa"


@pytest.mark.skipif(count_cuda_devices() > 0, reason="there is a CUDA device")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "cuda,tensorrt"])
def test_a_provider_that_is_not_usable(whole, mode, provider):
    words = "provider .* is not usable here"
    refuse(SettingError, words, open_one, whole, mode, providers=provider)


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (np.zeros(0, np.float32), "no samples"),
        (np.zeros((0, 2)), "no samples"),
        (np.zeros(399), "too short"),
        (np.full(800, np.nan), "NaN"),
        (np.array([0.0, np.inf] * 800, np.float32), "infinite"),
        (np.zeros((2, 8000)), "shape"),
        (np.array(["a"] * 800), "type"),
        ("nothing.wav", "no such audio file"),
    ],
)
def test_audio_that_cannot_be_heard(whole, mode, audio, words):
    recognizer = open_one(whole, mode)
    kind = NotFoundError if isinstance(audio, str) else DataError
    refuse(kind, words, recognizer.transcribe, audio)
    # And it is none the worse for it.
    assert recognizer.transcribe(speak(SAID)).text


def test_audio_of_every_kind_gives_the_same_text(whole, mode, tmp_path):
    signal = speak(SAID)
    recognizer = open_one(whole, mode)
    text = recognizer.transcribe(signal).text
    assert len(text) > 2
    stereo = np.stack([signal - 0.1, signal + 0.1], 1)
    whole_numbers = (signal * 32768).round().astype(np.int16)
    for audio in (
        signal.astype(np.float64),
        signal[::-1].copy()[::-1],
        np.asfortranarray(stereo),
        whole_numbers,
        (stereo.astype(np.float64), 16000),
    ):
        assert recognizer.transcribe(audio).text == text
    soundfile.write(tmp_path / "a.wav", stereo, 16000, subtype="FLOAT")
    assert recognizer.transcribe(tmp_path / "a.wav").text == text


def test_8_kilohertz(whole, mode, tmp_path):
    """Slow levels, so that nothing is lost at half the rate."""
    time = np.arange(16000) / 16000
    signal = (0.8 * np.sin(2 * np.pi * time)).astype(np.float32)
    recognizer = open_one(whole, mode)
    expected = recognizer.logits(signal)
    got = recognizer.logits((signal[::2], 8000))
    # The ends ring.
    assert np.abs(got - expected)[3:-3].max() < 0.02 * np.abs(expected).max()
    soundfile.write(tmp_path / "a.wav", signal[::2], 8000, subtype="FLOAT")
    again = recognizer.logits(tmp_path / "a.wav")
    np.testing.assert_allclose(again, got, atol=1e-5)
