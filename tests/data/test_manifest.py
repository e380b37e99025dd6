"""Manifests are SpeechBrain's, written whole, and read with care."""

import csv

import pytest
from speechbrain.dataio.dataio import load_data_csv

from s3router.data.manifest import COLUMNS, read_manifest, write_manifest
from s3router.errors import DataError, NotFoundError


def row(uid="a", **changes):
    values = {
        "ID": uid,
        "duration": 1.25,
        "wav": f"/data/{uid}.mp3",
        "spk_id": "s1",
        "wrd": "l'été, 你好",
        "language": "fr",
    }
    return values | changes


def test_round_trip_and_speechbrain_reads_the_same(tmp_path):
    path = tmp_path / "deep" / "train.csv"
    rows = [row("a"), row("b", wrd='a "quoted" word', duration=1 / 3)]
    assert write_manifest(path, rows) == 2
    assert read_manifest(path) == rows
    theirs = load_data_csv(path)
    assert list(theirs) == ["a", "b"]
    for mine in rows:
        other = theirs[mine["ID"]]
        assert other == {k: v for k, v in mine.items() if k != "ID"}


def test_header_is_the_contract(tmp_path):
    write_manifest(tmp_path / "a.csv", [row()])
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    assert COLUMNS == ("ID", "duration", "wav", "spk_id", "wrd", "language")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.csv"
    write_manifest(path, [row("old")])
    before = path.read_bytes()
    incomplete = row("b")
    del incomplete["wrd"]
    for bad in ([row(), row()], [row(), incomplete]):
        with pytest.raises(DataError):
            write_manifest(path, bad)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it has none"),
        ("ID,duration,wav,spk_id,wrd\n", "lacks the column language"),
        ("ID,duration,wav,spk_id,wrd,language\n", "no rows"),
        (
            "ID,duration,wav,spk_id,wrd,language\na,1,a.mp3\n",
            "line 2: fewer cells",
        ),
        (
            "ID,duration,wav,spk_id,wrd,language\na,1 s,a.mp3,s,w,fr\n",
            "line 2: '1 s' is no duration",
        ),
        (
            "ID,duration,wav,spk_id,wrd,language\na,nan,a.mp3,s,w,fr\n",
            "'nan' is no duration",
        ),
        (
            "ID,duration,wav,spk_id,wrd,language\n"
            "a,1,a.mp3,s,w,fr\na,1,b.mp3,s,w,fr\n",
            "line 3: the ID 'a' stands twice",
        ),
    ],
)
def test_bad_manifests_say_what_and_where(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_missing_and_not_text(tmp_path):
    with pytest.raises(NotFoundError, match=r"no such manifest: .*a\.csv"):
        read_manifest(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(b"ID,duration\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        read_manifest(tmp_path / "b.csv")


def test_more_columns_do_no_harm(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "phn,ID,duration,wav,spk_id,wrd,language\nx,a,1,a.mp3,s,w,fr\n",
        encoding="utf-8",
    )
    assert read_manifest(path) == [
        row("a", duration=1.0, wav="a.mp3", spk_id="s", wrd="w")
    ]
