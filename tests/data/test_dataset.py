"""Data sets hand the recipe what the manifest says, in the order it wants."""

import logging

import numpy as np
import pytest
import soundfile
import torch
from speechbrain.dataio.batch import PaddedBatch

from s3router.data.dataset import speech_dataset
from s3router.data.manifest import write_manifest
from s3router.data.tokens import CharTokens
from s3router.errors import DataError, SettingError

WORDS = ["ab", "b a", "abba"]


@pytest.fixture
def manifest(tmp_path):
    rows = []
    for i, (seconds, wrd) in enumerate(
        zip((0.3, 0.1, 0.2), WORDS, strict=True)
    ):
        wav = tmp_path / f"{i}$x.wav"  # a $ is no variable here
        soundfile.write(wav, np.full(int(8000 * seconds), i / 4), 8000)
        rows.append(
            {
                "ID": f"u{i}",
                "duration": seconds,
                "wav": str(wav),
                "spk_id": "s",
                "wrd": wrd,
                "language": "xx",
            }
        )
    write_manifest(tmp_path / "a.csv", rows)
    return tmp_path / "a.csv"


def test_items(manifest):
    tokens = CharTokens.from_texts(WORDS)
    data = speech_dataset(manifest, tokens)
    assert [data[i]["id"] for i in range(3)] == ["u1", "u2", "u0"]
    item = data[2]
    assert set(item) == {"id", "sig", "tokens", "wrd"}
    assert item["wrd"] == "ab"
    assert item["sig"].shape == (4800,) and item["sig"].dtype == torch.float32
    assert item["tokens"].dtype == torch.int64
    assert tokens.decode(item["tokens"].tolist()) == "ab"
    assert [float(r["duration"]) for r in data.data.values()] == [0.1, 0.2, 0.3]
    batch = PaddedBatch([data[0], data[2]])
    assert batch.sig.data.shape == (2, 4800)
    assert batch.sig.lengths.tolist() == pytest.approx([1 / 3, 1.0])


def test_features_take_the_place_of_audio(manifest):
    tokens = CharTokens.from_texts(WORDS)
    for wav in manifest.parent.glob("*.wav"):
        wav.unlink()
    data = speech_dataset(
        manifest, tokens, features=lambda uid: torch.full((2, 3), int(uid[1]))
    )
    item = data[0]
    assert set(item) == {"id", "features", "tokens", "wrd"}
    assert torch.equal(item["features"], torch.full((2, 3), 1))
    assert PaddedBatch([data[0], data[1]]).features.data.shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("sorting", "expected"),
    [
        ("descending", ["u0", "u2", "u1"]),
        ("none", ["u0", "u1", "u2"]),
    ],
)
def test_sorting(manifest, sorting, expected):
    tokens = CharTokens.from_texts(WORDS)
    data = speech_dataset(manifest, tokens, sorting=sorting)
    assert [data[i]["id"] for i in range(3)] == expected
    with pytest.raises(SettingError, match="ascending"):
        speech_dataset(manifest, tokens, sorting="ascendin")


def test_unknown_characters_are_reported_not_fatal(manifest, caplog):
    tokens = CharTokens.from_texts(["a a"])
    with caplog.at_level(logging.WARNING):
        data = speech_dataset(manifest, tokens)
    assert "4 characters" in caplog.text
    assert data[0]["wrd"] == "b a"  # scored against the text, not the tokens
    assert data[0]["tokens"][0] == tokens.unk_index


def test_empty_transcripts_and_lost_clips_have_clear_lines(manifest):
    tokens = CharTokens.from_texts(WORDS)
    data = speech_dataset(manifest, tokens)
    lost = manifest.parent / "1$x.wav"
    lost.unlink()
    with pytest.raises(DataError, match="missing audio file"):
        data[0]
    text = manifest.read_text("utf-8").replace("abba", "")
    manifest.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="u2 has an empty transcript"):
        speech_dataset(manifest, tokens)
