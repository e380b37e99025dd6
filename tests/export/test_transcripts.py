"""CSV files of real speech: which rows are taken, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from s3router.errors import DataError, NotFoundError, SettingError
from s3router.export.transcripts import read_transcripts


@pytest.fixture
def folder(tmp_path) -> Path:
    """Return a folder of two clips."""
    for name, value in (("a", 0.25), ("b", -0.5)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(800, value), 16000)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "test.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("column", ["wrd", "text"])
@pytest.mark.parametrize(
    ("said", "code"), [("zh", "zh-CN"), ("zh-CN", "zh"), ("es", "es")]
)
def test_rows_go_to_their_languages(folder, column, said, code):
    path = write(
        folder,
        f"ID,wav,language,{column}\n"
        f'1,b.wav,{said},"Hola, 你好!"\n2,a.wav,xx,nothing\n',
    )
    found = read_transcripts([path], [code, "fr"])
    assert found["fr"] == []
    ((clip),) = found[code]
    assert clip.samples.shape == (800,)
    assert clip.samples[0] == pytest.approx(-0.5, abs=1e-4)
    # As those that recognisers learn from: no case, no punctuation.
    assert clip.text.replace(" ", "") == "hola你好"


def test_no_files_no_clips():
    assert read_transcripts([], ["es"]) == {"es": []}


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("wav,language\na.wav,es\n", DataError, "lacks the column wrd; it has"),
        ("wav,language,wrd\n", DataError, "has no rows"),
        ("wav,language,wrd\na.wav,es\n", DataError, "row 2: fewer cells"),
        ("wav,language,wrd\nc.wav,es,hola\n", NotFoundError, "c.wav"),
        ("wav,language,wrd\na.wav,fr,oui\n", SettingError, "of fr, it has es"),
    ],
)
def test_what_is_refused(folder, text, error, words):
    with pytest.raises(error, match=words):
        read_transcripts([write(folder, text)], ["es"])


def test_another_country_is_another_language(folder):
    path = write(folder, "wav,language,wrd\na.wav,zh-CN,a\n")
    with pytest.raises(SettingError, match="of zh-CN, it has zh-TW"):
        read_transcripts([path], ["zh-TW"])


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(NotFoundError, match="no such file of transcripts"):
        read_transcripts([tmp_path / "none.csv"], ["es"])
