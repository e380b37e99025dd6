"""Synthetic corpora: the Common Voice layout, disjoint splits, resumed."""

import csv
import sys

import numpy as np
import pytest
import soundfile

from s3router.data import espeak, synthetic
from s3router.data.espeak import SPEAKERS, VOICES, synthesize
from s3router.data.synthetic import COLUMNS, SPLIT_VOICES, make_corpus
from s3router.data.synthetic_text import TABLES
from s3router.errors import (
    DataError,
    MissingDependencyError,
    SettingError,
)

SIZES = {"train": 4, "dev": 2, "test": 3}


@pytest.fixture(scope="module")
def engine():
    pytest.importorskip("espeakng_loader", reason="no eSpeak NG")


@pytest.fixture(scope="module")
def corpus(engine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    return make_corpus(folder, ["zh", "es"], SIZES, seed=3, progress=False)


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(
            csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        )


def test_same_arguments_give_the_same_bytes(engine):
    first = synthesize("今天是星期三。", "zh-CN", "f2", 150, 55, seed=7)
    # Whatever was said in between must leave no trace.
    synthesize("seven", "en", "m1")
    second = synthesize("今天是星期三。", "zh-CN", "f2", 150, 55, seed=7)
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"text": "ocho"},
        {"voice": "m3"},
        {"rate": 200},
        {"pitch": 90},
        {"seed": 1},
        {"language": "it"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_argument_changes_the_sound(engine, change):
    plain = {
        "text": "siete",
        "language": "es",
        "voice": "f2",
        "rate": 150,
        "pitch": 50,
        "seed": 0,
    }
    first = synthesize(**plain)
    second = synthesize(**{**plain, **change})
    assert first.tobytes() != second.tobytes()


def test_sound_is_speech_at_16_khz(engine):
    speech = synthesize("one two three four five", "en", rate=175)
    assert speech.dtype == np.float32
    assert speech.ndim == 1
    assert 1.0 < speech.size / 16000 < 4.0  # wrong rates are 1.4 times off
    assert 0.2 < np.abs(speech).max() <= 1.0
    quiet = np.abs(speech[:800]).max()
    assert quiet < 0.5 * np.abs(speech).max()
    assert np.abs(speech[2400:4000]).max() > quiet  # trimmed to 0.1 s


def test_faster_is_shorter(engine):
    slow = synthesize("one two three four five", "en", rate=120)
    fast = synthesize("one two three four five", "en", rate=240)
    assert fast.size < 0.75 * slow.size


@pytest.mark.parametrize("language", sorted(TABLES))
def test_every_language_of_the_texts_can_be_spoken(engine, language):
    assert language in VOICES
    digits = TABLES[language].digits.split()
    assert synthesize(" ".join(digits[3:6]), language).size > 8000


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("a", "xx"), "unknown language 'xx'"),
        (("a", "en", "f9"), "unknown synthetic voice 'f9'"),
        (("a", "en", "f2", 20), "rate 20"),
        (("a", "en", "f2", 160, 100), "pitch 100"),
    ],
)
def test_what_does_not_exist_is_said(arguments, error):
    with pytest.raises(SettingError, match=error):
        synthesize(*arguments)


def test_silence_is_an_error(engine):
    with pytest.raises(DataError, match="says nothing"):
        synthesize("", "en")


def test_a_missing_engine_is_named_with_its_licence(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingDependencyError) as caught:
        synthesize("a", "en")
    for part in ("espeakng-loader", "GPL-3.0", "pip install", "synthetic"):
        assert part in str(caught.value)


def test_layout_is_that_of_common_voice(corpus):
    assert {p.name for p in corpus.iterdir() if p.is_dir()} == {"zh-CN", "es"}
    for language in ("zh-CN", "es"):
        splits = {}
        for split, size in SIZES.items():
            rows = rows_of(corpus / language / f"{split}.tsv")
            assert tuple(rows[0]) == COLUMNS
            assert len(rows) == size
            assert {row["locale"] for row in rows} == {language}
            splits[split] = rows
            for row in rows:
                clip = corpus / language / "clips" / row["path"]
                info = soundfile.info(clip)
                assert (info.samplerate, info.channels) == (16000, 1)
        validated = rows_of(corpus / language / "validated.tsv")
        assert validated == [row for rows in splits.values() for row in rows]


def test_splits_share_neither_sentences_nor_voices(corpus):
    for language in ("zh-CN", "es"):
        for column in ("sentence", "client_id", "path"):
            values = [
                {
                    row[column]
                    for row in rows_of(corpus / language / f"{split}.tsv")
                }
                for split in SIZES
            ]
            assert sum(map(len, values)) == len(set.union(*values)), column


def test_voices_of_splits_are_disjoint():
    voices = [voice for split in SPLIT_VOICES.values() for voice in split]
    assert len(voices) == len(set(voices))
    assert set(voices) <= set(SPEAKERS)


def test_it_is_called_synthetic(corpus):
    assert "SYNTHETIC" in (corpus / "README.txt").read_text(encoding="utf-8")
    row = rows_of(corpus / "es" / "train.tsv")[0]
    assert "synthetic" in row["path"]
    assert "synthetic" in row["accents"]


def test_the_same_seed_gives_the_same_corpus(corpus, tmp_path):
    again = make_corpus(tmp_path, ["es"], SIZES, seed=3, progress=False)
    for path in sorted((again / "es").rglob("*.*")):
        twin = corpus / "es" / path.relative_to(again / "es")
        assert path.read_bytes() == twin.read_bytes(), path.name


def test_another_seed_gives_other_sentences(corpus, tmp_path):
    other = make_corpus(tmp_path, ["es"], SIZES, seed=4, progress=False)
    sentences = [
        [row["sentence"] for row in rows_of(folder / "es" / "validated.tsv")]
        for folder in (corpus, other)
    ]
    assert sentences[0] != sentences[1]


def test_a_second_call_speaks_only_what_is_missing(
    engine, tmp_path, monkeypatch
):
    make_corpus(tmp_path, ["es"], SIZES, seed=3, progress=False)
    clip = sorted((tmp_path / "es" / "clips").iterdir())[2]
    content = clip.read_bytes()
    clip.unlink()
    spoken = []

    def count(*arguments):
        spoken.append(arguments)
        return espeak.synthesize(*arguments)

    monkeypatch.setattr(synthetic, "synthesize", count)
    make_corpus(tmp_path, ["es"], SIZES, seed=3, progress=False)
    assert len(spoken) == 1
    assert clip.read_bytes() == content


def test_minutes_are_reached_and_not_much_more(engine, tmp_path):
    minutes = {"train": 0.2, "dev": 0.05, "test": 0.1}
    make_corpus(
        tmp_path, ["es"], minutes, seed=1, unit="minutes", progress=False
    )
    for split, wanted in minutes.items():
        rows = rows_of(tmp_path / "es" / f"{split}.tsv")
        clips = [
            soundfile.info(tmp_path / "es" / "clips" / row["path"]).duration
            for row in rows
        ]
        assert sum(clips) >= 60 * wanted
        assert sum(clips[:-1]) < 60 * wanted


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"sizes": {"train": 4, "dev": 2}}, "needs 'test'"),
        ({"sizes": {**SIZES, "dev": 0}}, "needs 'dev'"),
        ({"unit": "hours"}, "unknown unit"),
        ({"languages": ["xx"]}, "unknown language"),
    ],
)
def test_bad_settings_are_said(tmp_path, change, error):
    arguments = {"languages": ["es"], "sizes": SIZES, **change}
    with pytest.raises(SettingError, match=error):
        make_corpus(tmp_path, progress=False, **arguments)


def test_a_corpus_of_other_settings_is_not_mixed(corpus):
    with pytest.raises(SettingError, match="other settings"):
        make_corpus(corpus, ["es"], SIZES, seed=9, progress=False)
