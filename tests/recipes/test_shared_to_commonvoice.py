"""The converter of recorded packs lays out what Common Voice would."""

import os
import subprocess
import sys

import pytest
from shared_to_commonvoice import convert

from s3router.data.common_voice import find_language, read_table

HEADER = "ID,duration,wav,language,speaker,text\n"


@pytest.fixture
def shared(tmp_path):
    for pack, languages in {
        "zh_a": "zh zh en",
        "zh_b": "zh",
        "is_c": "is",
    }.items():
        folder = tmp_path / "shared" / "data" / pack
        (folder / "audio").mkdir(parents=True)
        for split, count in {"train": 30, "dev": 5, "test": 4}.items():
            text = HEADER
            for i in range(count):
                language = languages.split()[i % len(languages.split())]
                wav = f"audio/{pack}_{split}_{i}.ogg"
                (folder / wav).write_text(f"{pack} {split} {i}")
                uid = f"{pack}_{split}_{i}"
                text += f"{uid},6.0,{wav},{language},s{i % 3},mot {i}\n"
            (folder / f"{split}.csv").write_text(text, encoding="utf-8")
    return tmp_path / "shared"


def rows(output, language, split):
    folder = find_language(output, language)
    found, broken = read_table(folder / f"{split}.tsv", language)
    assert not broken
    return found


def test_layout(shared, tmp_path):
    names = convert(["zh_a", "zh_b", "is_c"], tmp_path / "cv", shared=shared)
    assert names == ["zh-CN", "is"]
    train = rows(tmp_path / "cv", "zh-CN", "train")
    assert len(train) == 20 + 30  # Chinese of both packs
    assert len(rows(tmp_path / "cv", "zh-CN", "dev")) == 4 + 5
    assert len(rows(tmp_path / "cv", "is", "test")) == 4
    assert len(rows(tmp_path / "cv", "zh-CN", "validated")) == 50 + 9 + 3 + 4
    clip = tmp_path / "cv" / "zh-CN" / "clips" / train[0].path
    assert clip.is_symlink() and clip.read_text() == "zh_a train 0"
    assert (train[0].client_id, train[0].sentence) == ("s0", "mot 0")


def test_mixed_and_copies(shared, tmp_path):
    options = {"shared": shared, "mixed": True, "copy": True}
    convert(["zh_a"], tmp_path / "cv", **options)
    train = rows(tmp_path / "cv", "zh-CN", "train")
    assert len(train) == 30
    assert not (tmp_path / "cv/zh-CN/clips" / train[0].path).is_symlink()
    convert(["zh_a"], tmp_path / "cv", **options)  # over itself


def test_minutes_are_drawn_from_train_only(shared, tmp_path):
    for seed in (0, 1):
        convert(["is_c"], tmp_path / f"{seed}", 0.6, seed, shared)
    train = rows(tmp_path / "0", "is", "train")
    assert len(train) == 6
    speakers = [row.client_id for row in train]
    assert all(speakers.count(s) == 2 for s in ("s0", "s1", "s2"))
    assert len(rows(tmp_path / "0", "is", "dev")) == 5
    assert train != rows(tmp_path / "1", "is", "train")


def test_command_line(shared, tmp_path, repository):
    script = repository / "tests" / "tools" / "shared_to_commonvoice.py"
    command = [sys.executable, str(script), "is_c", "--minutes=0.3"]
    command += [f"--output={tmp_path / 'cv'}"]
    environment = os.environ | {
        "PYTHONPATH": str(repository),
        "S3ROUTER_SHARED": str(shared),
    }
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "cv", "is", "train")) == 3
    command[2] = "is_none"
    lost = subprocess.run(
        command, env=environment, capture_output=True, text=True
    )
    assert lost.returncode == 1 and "no such pack" in lost.stderr
