"""From a bundle and audio to text, on toy graphs whose answer is known."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_bundles import TOKENS, make_toy_bundle, speak, toy_graph

from s3router.errors import (
    DataError,
    FormatError,
    NotFoundError,
    S3RouterError,
    SettingError,
)
from s3router.formats.bundle import Bundle
from s3router.runtime.recognizer import Recognizer

SAID = [3, 0, 3, 2, 4, 1, 5, 2, 0, 2, 3]
TEXT = "aa bc a"


@pytest.fixture
def toy_bundle(tmp_path: Path) -> Path:
    """Return a fresh bundle with the one language xx."""
    return make_toy_bundle(tmp_path / "bundle")


def test_transcribe_array(toy_bundle: Path):
    recognizer = Recognizer(toy_bundle, providers="cpu", threads=1)
    transcript = recognizer.transcribe(speak(SAID))
    assert transcript.text == TEXT
    assert transcript.language == recognizer.language == "xx"
    assert transcript.provider == recognizer.provider
    assert transcript.provider == "CPUExecutionProvider"
    assert transcript.duration == pytest.approx(1.1)
    assert transcript.seconds > 0
    assert transcript.real_time_factor == pytest.approx(
        transcript.seconds / 1.1
    )
    assert transcript.as_dict()["text"] == TEXT


def test_transcribe_file_of_another_rate(toy_bundle: Path, tmp_path: Path):
    # Every level three samples long at 48 kHz.
    signal = np.repeat(speak(SAID, 0.2), 3)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([signal, signal], 1), 48000)
    recognizer = Recognizer(toy_bundle)
    assert recognizer.transcribe(path).text == TEXT
    assert recognizer.transcribe((signal, 48000)).text == TEXT


def test_a_long_recording_gives_the_text_of_the_whole(toy_bundle: Path):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, len(TOKENS), 1900).tolist()
    signal = speak(ids, 0.05)
    whole = Recognizer(toy_bundle, chunk_seconds=1000).transcribe(signal)
    for seconds in (2.0, 7.3, 30.0):
        pieces = Recognizer(toy_bundle, chunk_seconds=seconds)
        assert pieces.transcribe(signal).text == whole.text
    assert len(whole.text) > 500


def test_normalisation_is_the_manifests(tmp_path: Path):
    folder = make_toy_bundle(tmp_path / "b")
    bundle = Bundle.load(folder)
    bundle.normalize = True
    bundle.save(folder)
    signal = speak([1, 1, 5, 5])
    logits = Recognizer(folder).logits(signal)
    # Two halves of mean 0 and equal size: levels -1 and 1.
    expected = -((1.0 - np.arange(6) * 0.1) ** 2)
    np.testing.assert_allclose(logits[-1], expected, atol=1e-4)


def test_spaceless(tmp_path: Path):
    folder = make_toy_bundle(tmp_path / "b")
    bundle = Bundle.load(folder)
    entry = bundle.languages["xx"]
    object.__setattr__(entry, "spaceless", True)
    bundle.save(folder)
    text = Recognizer(folder).transcribe(speak(SAID)).text
    assert text == TEXT.replace(" ", "")


def test_languages_and_switch(tmp_path: Path):
    other = ["<blk>", "<unk>", "▁", "你", "好", "吗", "们"]
    folder = make_toy_bundle(
        tmp_path / "b", {"es": TOKENS, "zh-CN": other, "zh-TW": other}
    )
    with pytest.raises(SettingError, match="which language.*es, zh-CN, zh-TW"):
        Recognizer(folder)
    recognizer = Recognizer(folder, "es")
    recognizer.switch("ZH_cn")
    assert recognizer.language == "zh-CN"
    assert recognizer.transcribe(speak([3, 4])).text == "你好"
    with pytest.raises(SettingError, match="could be zh-CN or zh-TW"):
        recognizer.switch("zh")
    with pytest.raises(SettingError, match="unknown language 'fr'.*es, zh-CN"):
        recognizer.switch("fr")
    assert recognizer.language == "zh-CN"
    recognizer.switch("es")
    assert recognizer.transcribe(speak([3, 4])).text == "ab"
    assert recognizer.languages == ["es", "zh-CN", "zh-TW"]


def test_too_short(toy_bundle: Path):
    recognizer = Recognizer(toy_bundle)
    assert recognizer.transcribe(speak([3])[:400]).text == "a"
    with pytest.raises(DataError, match=r"too short: 24.9 ms.*25.0 ms"):
        recognizer.transcribe(speak([3])[:399])


@pytest.mark.parametrize("name", ["model.onnx", "tokens.txt"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damaged_files(toy_bundle: Path, name: str, damage: str):
    path = toy_bundle / "xx" / name
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[:-1])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    with pytest.raises((FormatError, NotFoundError), match=name):
        Recognizer(toy_bundle)


def test_tokens_of_another_graph(tmp_path: Path):
    folder = make_toy_bundle(tmp_path / "b")
    toy_graph(folder / "xx" / "model.onnx", len(TOKENS) + 1)
    Bundle.load(folder).save(folder)
    with pytest.raises(FormatError, match="6 tokens, its graph 7"):
        Recognizer(folder)


def test_a_failed_switch_keeps_the_old_language(tmp_path: Path):
    folder = make_toy_bundle(tmp_path / "b", {"aa": TOKENS, "bb": TOKENS})
    recognizer = Recognizer(folder, "aa")
    (folder / "bb" / "tokens.txt").write_text("x 0\n")
    with pytest.raises(S3RouterError):
        recognizer.switch("bb")
    assert recognizer.transcribe(speak(SAID)).text == TEXT


def test_ten_callers_at_once(toy_bundle: Path):
    recognizer = Recognizer(toy_bundle, threads=1)
    rng = np.random.default_rng(1)
    said = [rng.integers(0, 6, 40).tolist() for _ in range(10)]
    alone = [recognizer.transcribe(speak(ids)).text for ids in said]
    together = [""] * 10

    def work(i: int):
        together[i] = recognizer.transcribe(speak(said[i])).text

    threads = [threading.Thread(target=work, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


BLOCKED = """
import sys

class Block:
    names = {"torch", "torchaudio", "speechbrain", "transformers",
             "sentencepiece", "onnx", "scipy", "pandas"}

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ImportError(f"{name} is blocked by this test")

sys.meta_path.insert(0, Block())
from s3router.runtime.recognizer import Recognizer

print(Recognizer(sys.argv[1], "xx").transcribe(sys.argv[2]).text)
"""


def test_nothing_of_the_training_is_imported(toy_bundle: Path, tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", speak(SAID), 16000)
    result = subprocess.run(
        [sys.executable, "-c", BLOCKED, toy_bundle, tmp_path / "a.wav"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == ""
    assert result.stdout == TEXT + "\n"
