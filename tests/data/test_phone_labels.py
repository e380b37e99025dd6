"""Phones of clips are read from a manifest and what lies beside it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from s3router.data.phone_labels import (
    arpabet_words,
    ipa_words,
    read_phone_clips,
)
from s3router.errors import DataError, NotFoundError

MANIFEST = """ID,duration,wav,language,speaker,text
a,1.0,audio/a.ogg,en,s1,tu
b,1.0,audio/b.ogg,en,s2,tsi a
"""
PHONES = "ID,phones\na,T UW1 | AH0\nb,S\n"


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Path]:
    def write(manifest: str = MANIFEST, extra: str | None = PHONES) -> Path:
        path = tmp_path / "train.csv"
        path.write_text(manifest, encoding="utf-8")
        if extra is not None:
            (tmp_path / "extra.csv").write_text(extra, encoding="utf-8")
        return path

    return write


def test_phones_of_the_column(pack: Callable[..., Path]) -> None:
    path = pack()
    first, second = read_phone_clips(path)
    assert first.id == "a" and first.speaker == "s1"
    assert first.wav == str(path.parent / "audio/a.ogg")
    assert first.words == (("T", "UW"), ("AH",))
    assert second.phones == ["S"]


def test_text_is_ipa_where_tones_stand_apart(
    pack: Callable[..., Path],
) -> None:
    path = pack(extra="ID,tone_letters\na,tu˧\nb,tsi a\n")
    assert [clip.words for clip in read_phone_clips(path)] == [
        (("t", "u"),),
        (("t", "s", "i"), ("a",)),
    ]


def test_columns_by_their_names_of_a_manifest(
    pack: Callable[..., Path],
) -> None:
    path = pack(
        "ID,duration,wav,spk_id,wrd,language\na,1.0,/x/a.wav,s1,tu,en\n"
    )
    (clip,) = read_phone_clips(path)
    assert (clip.wav, clip.speaker) == ("/x/a.wav", "s1")


def test_clips_without_phones_are_left_out(pack: Callable[..., Path]) -> None:
    path = pack(extra="ID,phones\na,\nb,S\n")
    assert [clip.id for clip in read_phone_clips(path)] == ["b"]


def test_a_draw_keeps_order_and_follows_its_seed(
    pack: Callable[..., Path],
) -> None:
    names = [f"c{number:03d}" for number in range(200)]
    path = pack(
        "ID,wav,speaker,text\n"
        + "".join(f"{name},{name}.wav,s,x\n" for name in names),
        "ID,phones\n" + "".join(f"{name},T\n" for name in names),
    )
    draws = [
        [clip.id for clip in read_phone_clips(path, 20, seed)]
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0] == sorted(draws[0]) and len(set(draws[0])) == 20
    assert len(read_phone_clips(path, 500)) == 200


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Z IH1 R OW0 | T UW0", (("Z", "IH", "R", "OW"), ("T", "UW"))),
        ("AH2", (("AH",),)),
        (" | T | ", (("T",),)),
        ("", ()),
    ],
)
def test_arpabet(text: str, expected: tuple) -> None:
    assert arpabet_words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t͡ɕʰi", (("t͡ɕʰ", "i"),)),
        ("bor̥õ", (("b", "o", "r̥", "o\u0303"),)),
        ("aː kʷa", (("aː",), ("kʷ", "a"))),
        ("p\\1a", (("p", "a"),)),
        ("1 ̃", ()),
        ("a͡", (("a͡",),)),
    ],
)
def test_ipa(text: str, expected: tuple) -> None:
    assert ipa_words(text) == expected


@pytest.mark.parametrize(
    ("manifest", "extra", "message"),
    [
        (MANIFEST, "ID,age\na,6\nb,7\n", "column phones"),
        (MANIFEST, "ID,phones\na,T\n", "no row for 1 clips"),
        (MANIFEST, "ID,phones\na,\nb,|\n", "no clip"),
        (MANIFEST, "ID,phones\na,T\na,S\n", "'a' stands twice"),
        (MANIFEST, "ID,phones\n", "no rows"),
        (MANIFEST, "", "lacks the column ID"),
        ("ID,wav,text\na,a.wav,x\n", PHONES, "lacks the column speaker"),
        ("ID,wav,speaker,text\n", PHONES, "has no rows"),
    ],
)
def test_one_line_for_what_is_wrong(
    pack: Callable[..., Path], manifest: str, extra: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_phone_clips(pack(manifest, extra))
    assert "\n" not in str(caught.value)


def test_missing_files(pack: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="none.csv"):
        read_phone_clips(tmp_path / "none.csv")
    with pytest.raises(NotFoundError, match="extra.csv"):
        read_phone_clips(pack(extra=None))


def test_what_is_no_text(pack: Callable[..., Path]) -> None:
    path = pack()
    (path.parent / "extra.csv").write_bytes(b"ID,phones\na,\xff\xfe\n")
    with pytest.raises(DataError, match="no CSV in UTF-8"):
        read_phone_clips(path)


@pytest.mark.parametrize(
    ("name", "count", "longest"),
    [("en_speechocean", 39, 2), ("phones_tusom", 80, 6)],
)
def test_packs_of_human_speech(
    shared_data: Path, name: str, count: int, longest: int
) -> None:
    clips = read_phone_clips(shared_data / name / "train.csv")
    assert len(clips) > 1500
    phones = {phone for clip in clips for phone in clip.phones}
    assert 30 < len(phones) <= count
    assert max(map(len, phones)) <= longest
    assert all(Path(clip.wav).is_file() for clip in clips[:5])
