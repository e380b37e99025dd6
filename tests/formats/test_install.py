"""Installing: nothing that a file says is believed before it is checked."""

import errno
import hashlib
import json
import os
import struct
import tracemalloc

import numpy as np
import pytest
import zstandard
from bundle_writer import content, write_bundle

from s3router.errors import (
    FormatError,
    NotFoundError,
    S3RouterError,
    SettingError,
)
from s3router.formats.install import install
from s3router.formats.pack import pack


def test_truncated_and_altered_files(bundle, tmp_path):
    path = tmp_path / "b.s3r"
    pack(bundle, path)
    whole = path.read_bytes()
    damaged = [whole[:n] for n in (0, 5, 20, 47, 60, len(whole) - 1)]
    for at in (3, 13, 30, 60, len(whole) // 2, len(whole) - 1):
        changed = bytearray(whole)
        changed[at] ^= 16
        damaged.append(bytes(changed))
    damaged += [whole + b"\0", b"PK\3\4" + whole]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"b\.s3r ") as caught:
            install(path, tmp_path / "there")
        assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.s3r", "bundle"]


def test_a_newer_version_and_no_file(bundle, tmp_path):
    path = tmp_path / "b.s3r"
    pack(bundle, path)
    data = bytearray(path.read_bytes())
    data[8:12] = struct.pack("<I", 2)
    path.write_bytes(data)
    with pytest.raises(FormatError, match="version 2; this s3router reads"):
        install(path, tmp_path / "there")
    with pytest.raises(NotFoundError, match="no such file"):
        install(tmp_path / "gone.s3r", tmp_path / "there")


def forge(path, change):
    """Change the header of a file, and make its hash right again."""
    data = path.read_bytes()
    start = struct.Struct("<8sII32s")
    magic, version, size, _ = start.unpack(data[: start.size])
    raw = data[start.size :][:size]
    header = json.loads(zstandard.ZstdDecompressor().decompress(raw))
    change(header)
    text = zstandard.ZstdCompressor().compress(json.dumps(header).encode())
    rest = text + data[start.size + size :]
    digest = hashlib.sha256(rest).digest()
    path.write_bytes(start.pack(magic, version, len(text), digest) + rest)


def plain(header, name):
    return next(e for e in header["plain"] if e["name"] == name)


def mask(header, where=0):
    parts = header["graphs"][where]["parts"]
    return next(part for part in parts if "layer" in part)


def other(header):
    """Return the coding that turns all bits of a mask over."""
    coding = mask(header)["streams"][0][0]
    return {"ones": "zeros", "zeros": "ones"}[coding]


NOTHING = {
    "name": "extra.txt",
    "bytes": 0,
    "sha256": hashlib.sha256(b"").hexdigest(),
    "parts": [],
}
#: Where another check would have found the fault, but later.
WORDS = {
    "more than there is room": "MB are free",
    "negative": "-1 is no size",
    "true": "True is no size",
    "frame": "a frame of 1000000000 bytes, where",
    "long frame": "longer than the file",
    "large layer": "for graphs of",
    "over a folder": "name is there twice",
    "weights in a graph": "no weights for a",
    "long name": f"no file can be called '{'x' * 40}...'",
    "file left away": "belong to no file",
    "unknown file": "does not tell of extra.txt",
    "other coding": "does not come out as it was",
}
HOSTILE = {
    "outside": lambda h: plain(h, "xx.tokens.txt").update(name="../x"),
    "absolute": lambda h: h["graphs"][0].update(name="/x"),
    "odd name": lambda h: h["graphs"][0].update(name="./x"),
    "no name": lambda h: h["graphs"][0].update(name=3),
    "twice": lambda h: h["graphs"][0].update(name="backbone.bin"),
    "under a file": lambda h: h["graphs"][0].update(name="manifest.json/x"),
    "over a folder": lambda h: (
        h["plain"].append({**NOTHING, "name": "name/x"}),
        h["plain"].append({**NOTHING, "name": "name"}),
    ),
    "long name": lambda h: h["plain"].append({**NOTHING, "name": "x" * 300}),
    "weights in a graph": lambda h: h["layers"]["a"]["weight"].update(
        file=h["graphs"][0]["name"]
    ),
    "negative": lambda h: h["graphs"][0].update(bytes=-1),
    "true": lambda h: h["graphs"][0].update(bytes=True),
    "larger file": lambda h: h["graphs"][0].update(bytes=10**6),
    "smaller file": lambda h: h["graphs"][0].update(bytes=5),
    "more than there is room": lambda h: h["graphs"][0].update(bytes=10**18),
    "hash": lambda h: h["graphs"][0].update(sha256="0" * 64),
    "frame": lambda h: h["graphs"][0]["parts"][0].update(frame=[3, 10**9]),
    "long frame": lambda h: h["graphs"][0]["parts"][0].update(frame=[10**9, 3]),
    "raw": lambda h: h["graphs"][0]["parts"][0]["frame"].__setitem__(1, 7),
    "no parts": lambda h: h["graphs"][0].update(parts=None),
    "layer": lambda h: mask(h).update(layer="zz"),
    "other coding": lambda h: mask(h)["streams"][0].__setitem__(0, other(h)),
    "reference": lambda h: mask(h).update(reference="consensus of all"),
    "no reference": lambda h: mask(h).update(reference="magnitude", kept=10**9),
    "streams": lambda h: mask(h).update(streams=[["bits", 0, 0]] * 3),
    "coding": lambda h: mask(h)["streams"][0].__setitem__(0, "runs"),
    "huge layer": lambda h: h["layers"]["a"].update(size=1 << 40),
    "large layer": lambda h: h["layers"]["a"].update(size=1 << 25),
    "small layer": lambda h: h["layers"]["a"].update(size=9),
    "weight": lambda h: h["layers"]["a"]["weight"].update(file="../../x"),
    "offset": lambda h: h["layers"]["a"]["weight"].update(offset=1 << 70),
    "dtype": lambda h: h["layers"]["a"]["weight"].update(dtype="O"),
    "lists": lambda h: h.update(plain=3),
    "missing": lambda h: h.pop("layers"),
    "unknown file": lambda h: h["plain"].append(NOTHING),
    "file left away": lambda h: h["graphs"].pop(),
    "manifest left away": lambda h: h["plain"].pop(0),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_headers(bundle, tmp_path, what):
    path = tmp_path / "b.s3r"
    pack(bundle, path)
    forge(path, HOSTILE[what])
    with pytest.raises((FormatError, SettingError), match=r"b\.s3r") as caught:
        install(path, tmp_path / "there")
    assert WORDS.get(what, "") in str(caught.value)
    assert ".tmp-" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.s3r", "bundle"]


def test_an_unchanged_header_may_be_sealed_again(bundle, tmp_path):
    """Or the tests above would find the forger's faults only."""
    pack(bundle, tmp_path / "b.s3r")
    forge(tmp_path / "b.s3r", lambda header: None)
    install(tmp_path / "b.s3r", tmp_path / "there")
    assert content(tmp_path / "there") == content(bundle)


def test_a_frame_that_swells_is_not_unpacked(bundle, tmp_path):
    """A frame of a gigabyte of zeros, in the place of a small one."""
    path = tmp_path / "b.s3r"
    pack(bundle, path)
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(1 << 30))
    assert len(bomb) < 1 << 17

    def change(header):
        header["plain"][0]["parts"][0]["frame"][0] = len(bomb)

    data = path.read_bytes()
    size = struct.unpack("<I", data[12:16])[0]
    path.write_bytes(data[: 48 + size] + bomb)
    forge(path, change)
    with pytest.raises(FormatError, match="1073741824 bytes instead of"):
        install(path, tmp_path / "there")


def agreed(header, layers, size):
    """Add layers of which all languages agree that all is removed."""
    nothing = {"reference": "none", "kept": 0, "streams": [["ones", 0, 0]]}
    layer = {"size": size, "weight": None, "consensus": nothing}
    header["layers"] |= {f"x{number}": layer for number in range(layers)}


def test_masks_that_no_graph_wants_are_not_unpacked(bundle, tmp_path):
    pack(bundle, tmp_path / "b.s3r")
    forge(tmp_path / "b.s3r", lambda header: agreed(header, 40, 1 << 26))
    with pytest.raises(FormatError, match=r"masks of 335\d+ bytes for graphs"):
        install(tmp_path / "b.s3r", tmp_path / "there")


def test_what_languages_agree_on_is_not_held_in_memory(bundle, tmp_path):
    pack(bundle, tmp_path / "b.s3r")

    def change(header):
        agreed(header, 200, 1 << 20)
        header["graphs"][-1]["bytes"] += 200 << 17

    forge(tmp_path / "b.s3r", change)
    tracemalloc.start()
    with pytest.raises(FormatError, match="does not come out as it was"):
        install(tmp_path / "b.s3r", tmp_path / "there")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 17


def test_a_disk_that_fails_gives_one_line(bundle, tmp_path, monkeypatch):
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), ".tmp-x")

    pack(bundle, tmp_path / "b.s3r", with_backbone=False)
    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(SettingError) as caught:
        install(tmp_path / "b.s3r", tmp_path / "there", bundle)
    text = f"{tmp_path}/b.s3r cannot be unpacked: {os.strerror(errno.ENOSPC)}"
    assert str(caught.value) == text
    assert not (tmp_path / "there").exists()


def test_an_install_that_fails_leaves_the_old_bundle(bundle, tmp_path):
    pack(bundle, tmp_path / "b.s3r")
    before = content(bundle)
    forge(tmp_path / "b.s3r", HOSTILE["hash"])
    with pytest.raises(S3RouterError):
        install(tmp_path / "b.s3r", bundle)
    assert content(bundle) == before
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("years of work")
    with pytest.raises(SettingError, match="will not replace"):
        install(tmp_path / "b.s3r", tmp_path / "own")


def test_scales_that_do_not_fit(tmp_path):
    levels = np.arange(-64, 64, dtype=np.int8).reshape(16, 8)
    folder = write_bundle(
        tmp_path / "b",
        {"a": levels},
        {"xx": {"a": np.abs(levels) > 9}},
        {"a": np.ones(8, np.float32)},
    )
    pack(folder, tmp_path / "b.s3r")
    install(tmp_path / "b.s3r", tmp_path / "there")
    for wrong, words in (
        ({"count": 7}, "7 scales for a"),
        ({"count": 0}, "0 scales for a"),
        ({"offset": 1 << 60}, "is more than"),
        ({"file": "xx.onnx"}, "no weights for a"),
        ({"count": 16 * 8}, "lacks the mask of reference"),
    ):

        def change(header, wrong=wrong):
            header["layers"]["a"]["weight"]["scales"].update(wrong)

        forge(tmp_path / "b.s3r", change)
        with pytest.raises(FormatError, match=words):
            install(tmp_path / "b.s3r", tmp_path / "not")
        pack(folder, tmp_path / "b.s3r")
