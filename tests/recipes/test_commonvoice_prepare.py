"""Common Voice releases of every age become manifests; nothing is silent."""

import importlib.util
import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from s3router.data.manifest import read_manifest
from s3router.errors import DataError, NotFoundError, SettingError

OLD = "client_id path sentence up_votes down_votes age gender accent".split()
NEW = (
    "client_id path sentence_id sentence sentence_domain up_votes down_votes "
    "age gender accents variant locale segment"
).split()
ENCODING = {
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
    "ogg": ("OGG", "VORBIS"),
    "flac": ("FLAC", "PCM_16"),
    "wav": ("WAV", "PCM_16"),
}


@pytest.fixture(scope="module")
def prepare_module(repository):
    path = repository / "recipes" / "commonvoice" / "prepare.py"
    spec = importlib.util.spec_from_file_location("prepare", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["prepare"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["prepare"]


@pytest.fixture
def prepare(prepare_module, tmp_path):
    def run(folder, language="fr", save="save", **options):
        options = {"progress": False, "num_threads": 1} | options
        return prepare_module.prepare_commonvoice(
            folder, language, tmp_path / save, **options
        )

    return run


def clip(folder, name, seconds=1.0, rate=32000):
    folder.mkdir(parents=True, exist_ok=True)
    kind, subtype = ENCODING[name.rsplit(".", 1)[1]]
    noise = np.random.default_rng(len(name)).standard_normal(
        int(seconds * rate)
    )
    rate = 48000 if subtype == "OPUS" else rate
    with (folder / name).open("wb") as file:
        soundfile.write(file, noise * 0.1, rate, format=kind, subtype=subtype)
    return folder / name


def table(folder, name, rows, columns=NEW, end="\n"):
    """Write rows of (client_id, path, sentence, *more)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(columns)]
    for client_id, path, sentence, *_ in rows:
        known = {
            "client_id": client_id,
            "path": path,
            "sentence": sentence,
            "locale": folder.name,
        }
        lines.append("\t".join(known.get(c, "") for c in columns))
    text = end.join(lines) + end
    (folder / f"{name}.tsv").write_bytes(text.encode("utf-8"))


def release(root, language="fr", train=(), columns=NEW, end="\n"):
    """Write a small sound release; return the language's folder."""
    folder = root / "cv" / language
    for split in ("train", "dev", "test"):
        rows = [
            (f"{split}_speaker{i % 2}", f"{split}{i}.mp3", f"L’été, {split} !")
            for i in range(2)
        ]
        for _, path, _ in rows:
            clip(folder / "clips", path)
        if split == "train":
            rows += train
        table(folder, split, rows, columns, end)
    return folder


def skipped(tmp_path, save="save"):
    return json.loads((tmp_path / save / "skipped.json").read_text("utf-8"))


def ids(tmp_path, split, save="save"):
    return [r["ID"] for r in read_manifest(tmp_path / save / f"{split}.csv")]


def test_manifests(prepare, tmp_path):
    folder = release(tmp_path)
    result = prepare(folder.parent)
    for split in ("train", "dev", "test"):
        rows = read_manifest(tmp_path / "save" / f"{split}.csv")
        assert [r["ID"] for r in rows] == [f"{split}0", f"{split}1"]
        assert [r["spk_id"] for r in rows] == [
            f"{split}_speaker0",
            f"{split}_speaker1",
        ]
        for r in rows:
            assert r["wrd"] == f"l'été {split}" and r["language"] == "fr"
            assert r["wav"] == str(folder / "clips" / f"{r['ID']}.mp3")
            assert r["duration"] == pytest.approx(1.0, abs=1e-3)
        assert result[split]["rows"] == result[split]["kept"] == 2
        assert result[split]["skipped"] == {}
    assert skipped(tmp_path)["skipped"] == []
    assert {p.name for p in (tmp_path / "save").iterdir()} == {
        "train.csv",
        "dev.csv",
        "test.csv",
        "skipped.json",
        "clips.jsonl",
    }


def test_the_language_folder_itself_will_do(prepare, tmp_path):
    folder = release(tmp_path)
    assert prepare(folder)["train"]["kept"] == 2


@pytest.mark.parametrize("suffix", ENCODING)
def test_suffixes_old_releases_and_converted_clips(prepare, tmp_path, suffix):
    folder = release(
        tmp_path,
        train=[
            ("s", "with." + suffix, "un"),
            ("s", "without", "deux"),
            ("s", "converted.mp3", "trois"),
            ("s", "clips/below." + suffix, "quatre"),
            ("s", "dotted.name", "cinq"),
        ],
        columns=OLD,
        end="\r\n",
    )
    names = ["with", "without", "converted", "below", "dotted.name"]
    for name in names:
        clip(folder / "clips", f"{name}.{suffix}")
    assert prepare(folder.parent)["train"]["kept"] == 7
    rows = read_manifest(tmp_path / "save" / "train.csv")[2:]
    assert [r["ID"] for r in rows] == names
    assert [r["wrd"] for r in rows] == "un deux trois quatre cinq".split()


def test_raw_quotation_marks_and_odd_line_ends(prepare, tmp_path):
    sentences = ['"Ouvert', 'il dit "oui" et "non', "a\u2028b", "''", '"a""b"']
    rows = [("s", f"q{i}.wav", s) for i, s in enumerate(sentences)]
    folder = release(tmp_path, train=rows)
    for _, path, _ in rows:
        clip(folder / "clips", path, rate=16000)
    assert prepare(folder.parent)["train"]["rows"] == 7
    words = [r["wrd"] for r in read_manifest(tmp_path / "save/train.csv")][2:]
    assert words == ["ouvert", "il dit oui et non", "a b", "a b"]


def test_everything_skipped_is_counted_listed_and_said(
    prepare, tmp_path, caplog
):
    bad = [
        ("s", "lost.mp3", "un"),
        ("s", "empty.mp3", "deux"),
        ("s", "text.mp3", "trois"),
        ("s", "cut.mp3", "quatre"),
        ("s", "tiny.wav", "cinq"),
        ("s", "long.wav", "six"),
        ("s", "short.wav", "sept"),
        ("s", "dots.wav", "…?!"),
        ("s", "train0.mp3", "encore"),
        ("s", "dev0.mp3", "fuite"),
    ]
    folder = release(tmp_path, train=bad)
    with (folder / "train.tsv").open("a", encoding="utf-8") as file:
        file.write("half a row\n\n")
    clips = folder / "clips"
    (clips / "empty.mp3").touch()
    (clips / "text.mp3").write_text("no audio " * 50)
    whole = clip(clips, "cut.mp3", 5).read_bytes()
    (clips / "cut.mp3").write_bytes(whole[: len(whole) // 2])
    clip(clips, "tiny.wav", 0.02, 16000)
    clip(clips, "long.wav", 3.0, 16000)
    clip(clips, "short.wav", 0.2, 16000)
    clip(clips, "dots.wav", 1.0, 16000)
    with caplog.at_level(logging.INFO):
        result = prepare(folder.parent, min_seconds=0.5, max_seconds=2.5)
    expected = {
        "lost.mp3": "missing",
        "empty.mp3": "empty",
        "text.mp3": "undecodable",
        "cut.mp3": "truncated",
        "tiny.wav": "too short for the encoder",
        "long.wav": "longer than max_seconds",
        "short.wav": "shorter than min_seconds",
        "dots.wav": "empty sentence",
        "train0.mp3": "repeated in the table",
        "dev0.mp3": "also in dev or test",
        "half a row": "malformed row",
    }
    report = skipped(tmp_path)
    assert {s["path"]: s["reason"] for s in report["skipped"]} == expected
    assert [s["line"] for s in report["skipped"]] == list(range(4, 15))
    assert all(s["split"] == "train" for s in report["skipped"])
    assert ids(tmp_path, "train") == ["train0", "train1"]
    train = result["train"]
    assert (train["rows"], train["kept"]) == (13, 2)
    assert train["skipped"] == dict.fromkeys(expected.values(), 1)
    assert report["splits"] == result
    [line] = [m for m in caplog.messages if m.startswith("train: ")]
    assert "2 of 13 rows" in line and "skipped 11: " in line
    assert "1 truncated" in line and "skipped.json" in line


def test_length_never_drops_from_dev_and_test(prepare, tmp_path, caplog):
    folder = release(tmp_path)
    rows = [("s", f"{n}.wav", n) for n in ("long", "short", "broken", "tiny")]
    for split in ("dev", "test"):
        own = [(s, split + path, words) for s, path, words in rows]
        table(folder, split, own)
        for (_, path, _), seconds in zip(own, (3, 0.2, 1, 0.02), strict=True):
            clip(folder / "clips", path, seconds, 16000)
        (folder / "clips" / f"{split}broken.wav").write_bytes(b"RIFF")
    with caplog.at_level(logging.INFO):
        result = prepare(folder.parent, min_seconds=0.5, max_seconds=2.5)
    for split in ("dev", "test"):
        assert ids(tmp_path, split) == [f"{split}long", f"{split}short"]
        assert result[split]["skipped"] == {
            "undecodable": 1,
            "too short for the encoder": 1,
        }
    # Whoever scores on less than the official test set is warned.
    levels = {r.getMessage().split(":")[0]: r.levelname for r in caplog.records}
    assert levels == {"train": "INFO", "dev": "WARNING", "test": "WARNING"}


def test_min_samples_is_counted_at_the_encoders_rate(prepare, tmp_path):
    folder = release(tmp_path, train=[("s", "edge.wav", "un")])
    clip(folder / "clips", "edge.wav", 0.025, 32000)  # 400 samples at 16 kHz
    options = {"min_seconds": 0.0}
    assert prepare(folder, min_samples=400, **options)["train"]["kept"] == 3
    assert prepare(folder, min_samples=401, **options)["train"]["kept"] == 2


def test_nothing_left_is_an_error_with_the_reason(prepare, tmp_path):
    folder = release(tmp_path)
    for path in (folder / "clips").glob("dev*"):
        path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        prepare(folder.parent)
    message = str(caught.value)
    assert "nothing of" in message and "dev.tsv can be used" in message
    assert "2 empty" in message and "skipped.json" in message
    assert "\n" not in message
    assert not (tmp_path / "save" / "train.csv").exists()
    assert len(skipped(tmp_path)["skipped"]) == 2


def test_second_run_decodes_nothing_and_other_options_take_effect(
    prepare, prepare_module, tmp_path, monkeypatch
):
    folder = release(tmp_path, train=[("s", "x.wav", "un")])
    clip(folder / "clips", "x.wav", 2.0)
    prepare(folder.parent)
    before = (tmp_path / "save/train.csv").read_bytes()

    def fail(path):
        raise AssertionError(f"{path} was decoded again")

    monkeypatch.setattr("s3router.data.clips.check_audio", fail)
    prepare(folder.parent)
    assert (tmp_path / "save/train.csv").read_bytes() == before
    prepare(folder.parent, max_seconds=1.5)
    assert ids(tmp_path, "train") == ["train0", "train1"]
    assert skipped(tmp_path)["options"]["max_seconds"] == 1.5
    # Runs in other folders may share the memory.
    memory = tmp_path / "save" / "clips.jsonl"
    prepare(folder.parent, save="other", clip_memory=memory)
    assert (tmp_path / "other/train.csv").read_bytes() == before
    monkeypatch.undo()
    (folder / "clips" / "x.wav").unlink()
    assert prepare(folder.parent)["train"]["skipped"] == {"missing": 1}


def test_train_minutes(prepare, tmp_path, caplog):
    rows = [(f"s{i % 4}", f"x{i:02}.wav", f"mot {i}") for i in range(40)]
    rows += [("s0", f"y{i}.wav", "absent") for i in range(20)]
    folder = release(tmp_path, train=rows)
    for _, path, _ in rows[:40]:
        clip(folder / "clips", path, 1.0, 16000)
    result = prepare(folder, train_minutes=0.2, seed=5)["train"]
    drawn = read_manifest(tmp_path / "save/train.csv")
    assert result["minutes"] == pytest.approx(0.2, abs=1.01 / 60)
    assert len(drawn) == 12
    speakers = [r["spk_id"] for r in drawn if r["ID"].startswith("x")]
    counts = [speakers.count(f"s{i}") for i in range(4)]
    # Broken clips of a speaker are made up for, as far as he has sound ones.
    assert sum(counts) >= 10 and min(counts) >= 1
    total = result["kept"] + result["not_drawn"]
    assert total + sum(result["skipped"].values()) == result["rows"] == 62
    assert len(ids(tmp_path, "dev")) == 2

    prepare(folder, train_minutes=0.4, seed=5, save="more")
    assert set(ids(tmp_path, "train")) < set(ids(tmp_path, "train", "more"))
    prepare(folder, train_minutes=0.2, seed=5, save="same")
    assert ids(tmp_path, "train", "same") == ids(tmp_path, "train")
    prepare(folder, train_minutes=0.2, seed=6, save="seed")
    assert ids(tmp_path, "train", "seed") != ids(tmp_path, "train")

    with caplog.at_level(logging.WARNING):
        assert prepare(folder, train_minutes=99)["train"]["kept"] == 42
    assert "0.7 of the 99.0 minutes" in caplog.text


@pytest.mark.parametrize(
    "options",
    [
        {"train_minutes": 0},
        {"train_minutes": -1.0},
        {"min_seconds": 5, "max_seconds": 5},
        {"min_seconds": -1},
        {"language": False},
    ],
)
def test_bad_options(prepare, tmp_path, options):
    folder = release(tmp_path)
    with pytest.raises(SettingError):
        prepare(folder.parent, **options)
    assert not (tmp_path / "save").exists()


def error_line(prepare, folder, **options):
    with pytest.raises(NotFoundError) as caught:
        prepare(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_data_folder_that_is_not_there(prepare, tmp_path):
    line = error_line(prepare, tmp_path / "nowhere")
    assert "no such data folder" in line and "nowhere" in line
    assert "Mozilla Data Collective" in line and "fr/train.tsv" in line


def test_data_folder_that_is_another(prepare, tmp_path):
    (tmp_path / "cv" / "photos").mkdir(parents=True)
    (tmp_path / "cv" / "notes.txt").touch()
    line = error_line(prepare, tmp_path / "cv")
    assert "has no fr/train.tsv; it has notes.txt, photos/" in line
    assert "commonvoice.mozilla.org" in line
    (tmp_path / "cv" / "cv-corpus-20-fr.tar.gz").touch()
    line = error_line(prepare, tmp_path / "cv")
    assert "Unpack cv-corpus-20-fr.tar.gz first" in line


def test_data_folder_one_level_off(prepare, tmp_path):
    folder = release(tmp_path)
    line = error_line(prepare, tmp_path)
    assert f"Did you mean {folder.parent}?" in line


def test_language_by_another_name(prepare, tmp_path):
    folder = release(tmp_path, "zh-CN")
    line = error_line(prepare, folder.parent, language="zh")
    assert "Did you mean language 'zh-CN'?" in line


def test_incomplete_language_folder(prepare, tmp_path):
    folder = release(tmp_path)
    (folder / "dev.tsv").unlink()
    for path in (folder / "clips").iterdir():
        path.unlink()
    (folder / "clips").rmdir()
    line = error_line(prepare, folder.parent)
    assert "lacks dev.tsv, clips/; it has test.tsv, train.tsv" in line


def test_language_folder_of_another_language(prepare, tmp_path):
    folder = release(tmp_path, "de")
    with pytest.raises(DataError, match="is of language de, not fr"):
        prepare(folder, language="fr")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"client_id\tpath\ttext\na\tb\tc\n", "lacks the column sentence; it"),
        (b"path,sentence,client_id\n", "has path,sentence,client_id"),
        (b"", "it has none"),
        (b"client_id\tpath\tsentence\n", "no rows"),
        (b"client_id\tpath\tsentence\na\tb\t\xff\n", "not UTF-8"),
    ],
)
def test_bad_tables(prepare, tmp_path, content, message):
    folder = release(tmp_path)
    (folder / "test.tsv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        prepare(folder.parent)
    assert message in str(caught.value)
    assert str(folder / "test.tsv") in str(caught.value)


def test_byte_order_mark_and_no_last_line_end(prepare, tmp_path):
    folder = release(tmp_path)
    path = folder / "train.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().rstrip())
    assert prepare(folder.parent)["train"]["kept"] == 2


def test_command_line(tmp_path, repository):
    folder = release(tmp_path)
    script = repository / "recipes/commonvoice/prepare.py"
    command = [sys.executable, str(script), f"--data_folder={folder.parent}"]
    command += [f"--save_folder={tmp_path / 'save'}", "--language=fr"]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(ids(tmp_path, "test")) == 2


def test_command_line_errors_are_one_line(prepare_module, tmp_path, capsys):
    folder = release(tmp_path)
    arguments = [f"--data_folder={folder.parent}", "--language=it"]
    with pytest.raises(SystemExit) as caught:
        prepare_module.main([*arguments, f"--save_folder={tmp_path / 'save'}"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("s3router: error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("pack", "language", "characters"),
    [("zh_dsp20", "zh-CN", "数字"), ("is_samromur", "is", "þæð")],
)
def test_real_speech(
    make_commonvoice, prepare, tmp_path, pack, language, characters
):
    root = make_commonvoice(pack, minutes=0.5, limits={"dev": 8, "test": 12})
    result = prepare(root, language)
    assert {name: r["skipped"] for name, r in result.items()} == {
        "train": {},
        "dev": {},
        "test": {},
    }
    assert (result["dev"]["kept"], result["test"]["kept"]) == (8, 12)
    assert 0.5 <= result["train"]["minutes"] < 0.7
    rows = read_manifest(tmp_path / "save" / "train.csv")
    text = "".join(r["wrd"] for r in rows)
    assert set(characters) <= set(text)
    assert ("z" in text or " " in text) == (language == "is")
    drawn = [r["spk_id"] for r in rows]
    counts = [drawn.count(s) for s in set(drawn)]
    assert max(counts) - min(counts) <= 1
