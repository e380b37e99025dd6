"""Bundles for sending: the same bytes come back, in few of them, or nothing."""

import errno
import hashlib
import json
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zstandard
from bundle_writer import write_bundle

from s3router.cli import main
from s3router.errors import (
    FormatError,
    MismatchError,
    MissingDependencyError,
    NotFoundError,
    S3RouterError,
    SettingError,
)
from s3router.formats.bundle import Bundle
from s3router.formats.files import folder_sizes
from s3router.formats.install import install
from s3router.formats.pack import pack
from s3router.formats.pack_report import format_report

# No multiple of eight, nor of 255; one layer of structure, one of one row.
SHAPES = {"a": (64, 96), "b": (101, 47), "c": (1, 7), "d": (40, 80)}


def weights_of(seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def masks_of(density, seed):
    """Return random masks; of "d" whole rows are removed."""
    rng = np.random.default_rng(seed)
    masks = {
        name: rng.random(shape) < density for name, shape in SHAPES.items()
    }
    masks["d"] = np.repeat(rng.random(40) < density, 80).reshape(40, 80)
    return masks


@pytest.fixture
def bundle(tmp_path) -> Path:
    """Return a bundle of five languages: dense, empty, and three others."""
    densities = {"xx": 0.9, "yy": 0.5, "zh-CN": 0.03, "all": 1.0, "none": 0.0}
    masks = {
        code: masks_of(density, seed)
        for seed, (code, density) in enumerate(densities.items())
    }
    return write_bundle(tmp_path / "bundle", weights_of(), masks)


def content(folder):
    return {n: (folder / n).read_bytes() for n in folder_sizes(folder)}


@pytest.mark.parametrize("with_backbone", [True, False])
def test_the_same_bytes_come_back(bundle, tmp_path, with_backbone):
    numbers = pack(bundle, tmp_path / "b.s3r", with_backbone)
    assert numbers["bytes"] == (tmp_path / "b.s3r").stat().st_size
    assert numbers["installed"] == sum(folder_sizes(bundle).values())
    done = install(
        tmp_path / "b.s3r",
        tmp_path / "there",
        None if with_backbone else bundle,
    )
    assert content(tmp_path / "there") == content(bundle)
    assert done["bytes"] == numbers["installed"]
    left = [] if with_backbone else ["backbone.bin"]
    assert done["from_backbone"] == numbers["left_out"] == left
    Bundle.load(tmp_path / "there").verify()


def test_a_bundle_is_replaced_by_one_that_borrows_from_it(bundle, tmp_path):
    pack(bundle, tmp_path / "b.s3r", with_backbone=False)
    before = content(bundle)
    install(tmp_path / "b.s3r", bundle, bundle)
    assert content(bundle) == before


def near_magnitude(weight, sparsity, noise, seed):
    """Return a mask that mostly removes what is small."""
    rng = np.random.default_rng(seed)
    score = np.abs(weight) * np.exp(noise * rng.standard_normal(weight.shape))
    return score > np.quantile(score, sparsity)


def large(tmp_path, masks, dtype=np.float32):
    """Pack a bundle of one layer of 768 x 3072; return the report."""
    weight = np.random.default_rng(0).standard_normal((768, 3072))
    weight = weight.astype(dtype)
    masks = {code: {"a": make(weight)} for code, make in masks.items()}
    folder = write_bundle(tmp_path / "large", {"a": weight}, masks)
    numbers = pack(folder, tmp_path / "l.s3r", with_backbone=False)
    install(tmp_path / "l.s3r", tmp_path / "there", folder)
    assert content(tmp_path / "there") == content(folder)
    return numbers


def entropy(mask):
    """Return n H(d) in bytes."""
    d = mask.mean()
    return -(d * np.log2(d) + (1 - d) * np.log2(1 - d)) * mask.size / 8


def random_mask(sparsity, seed):
    return lambda w: np.random.default_rng(seed).random(w.shape) >= sparsity


@pytest.mark.parametrize("sparsity", [0.05, 0.1, 0.3, 0.5, 0.9])
def test_random_masks_come_within_3_percent_of_entropy(tmp_path, sparsity):
    make = random_mask(sparsity, 1)
    row = large(tmp_path, {"xx": make})["languages"]["xx"]
    bound = entropy(make(np.empty((768, 3072))))
    assert row["bound"] == pytest.approx(bound, abs=1)
    assert bound < row["masks"] < 1.03 * bound
    assert row["of_bound"] == pytest.approx(row["masks"] / bound)
    # r = 8 of 768 inputs and 3072 outputs, or the other way, two bytes each.
    assert row["lora"] == 8 * (768 + 3072) * 2


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_magnitude_says_need_not_be_sent(tmp_path, dtype):
    numbers = large(
        tmp_path, {"xx": lambda w: near_magnitude(w, 0.1, 0.1, 3)}, dtype
    )
    row = numbers["languages"]["xx"]
    assert row["references"] == {"magnitude": 1}
    assert row["masks"] < 0.4 * row["bound"]


def overlapping(sparsity, share, seed):
    """Return a mask that removes what others do, but for a share."""

    def make(weight):
        common = np.random.default_rng(7).permutation(weight.size)
        k = round(sparsity * weight.size)
        own = np.random.default_rng(seed).permutation(common[k:])
        mask = np.ones(weight.size, np.bool_)
        mask[common[: round(share * k)]] = False
        mask[own[: k - round(share * k)]] = False
        return mask.reshape(weight.shape)

    return make


def test_languages_that_overlap_cost_less_than_their_entropy(tmp_path):
    codes = "aa bb cc dd".split()
    masks = {c: overlapping(0.1, 0.95, i) for i, c in enumerate(codes)}
    numbers = large(tmp_path, masks)
    rows = numbers["languages"].values()
    sent = sum(row["masks"] for row in rows) + numbers["consensus"]
    bound = sum(row["bound"] for row in rows)
    assert 0 < numbers["consensus"] < 1.03 * bound / 4
    assert sent < 0.4 * bound
    # The share of the consensus is not forgotten.
    assert sum(r["of_bound"] * r["bound"] for r in rows) == pytest.approx(
        sent, rel=1e-4
    )
    for row in rows:
        assert row["references"] == {"consensus": 1}


def test_equal_masks_are_sent_once(tmp_path):
    numbers = large(
        tmp_path, {code: random_mask(0.3, 5) for code in ("aa", "bb", "cc")}
    )
    assert sum(r["masks"] for r in numbers["languages"].values()) < 100


def test_rows_cost_next_to_nothing(tmp_path):
    def rows(weight):
        kept = np.random.default_rng(2).random(weight.shape[0]) < 0.5
        return np.broadcast_to(kept[:, None], weight.shape).copy()

    row = large(tmp_path, {"xx": rows})["languages"]["xx"]
    assert row["masks"] < 0.01 * row["bound"]


def test_the_report_adds_up(bundle, tmp_path, capsys):
    numbers = pack(bundle, tmp_path / "b.s3r")
    own = sum(row["bytes"] for row in numbers["languages"].values())
    assert own + numbers["consensus"] < numbers["bytes"]
    assert main(["pack", str(bundle), "--output", str(tmp_path / "c.s3r")]) == 0
    table = capsys.readouterr().out
    assert table.startswith(format_report(numbers))
    assert "xx" in table and "LoRA r=8" in table
    again = ["pack", str(bundle), "--output", str(tmp_path / "d.s3r"), "--json"]
    assert main(again) == 0
    assert json.loads(capsys.readouterr().out) == numbers
    same = [(tmp_path / n).read_bytes() for n in ("b.s3r", "c.s3r", "d.s3r")]
    assert same[0] == same[1] == same[2]
    there = str(tmp_path / "there")
    assert main(["install", str(tmp_path / "b.s3r"), "--output", there]) == 0
    assert "verified" in capsys.readouterr().out


def test_backbones(bundle, tmp_path):
    pack(bundle, tmp_path / "b.s3r", with_backbone=False)
    with pytest.raises(SettingError, match="without backbone.bin.*--backbone"):
        install(tmp_path / "b.s3r", tmp_path / "there")
    other = write_bundle(
        tmp_path / "other", weights_of(1), {"xx": masks_of(0.5, 0)}
    )
    with pytest.raises(MismatchError, match="other has no backbone.bin of"):
        install(tmp_path / "b.s3r", tmp_path / "there", other)
    with pytest.raises(NotFoundError, match="no such bundle"):
        install(tmp_path / "b.s3r", tmp_path / "there", tmp_path / "gone")
    assert not (tmp_path / "there").exists()
    alone = write_bundle(tmp_path / "alone", {}, {"xx": {}})
    with pytest.raises(SettingError, match="pack it with its backbone"):
        pack(alone, tmp_path / "a.s3r", with_backbone=False)
    pack(alone, tmp_path / "a.s3r")
    install(tmp_path / "a.s3r", tmp_path / "there")
    assert content(tmp_path / "there") == content(alone)


def test_languages_without_masks_are_sent_without_the_backbone(tmp_path):
    """As those whose masks only have structure: no bits are in a graph."""
    bundle = write_bundle(tmp_path / "b", weights_of(), {"xx": {}, "yy": {}})
    numbers = pack(bundle, tmp_path / "b.s3r", with_backbone=False)
    assert numbers["left_out"] == ["backbone.bin"]
    assert numbers["bytes"] < 0.2 * (bundle / "backbone.bin").stat().st_size
    install(tmp_path / "b.s3r", tmp_path / "there", bundle)
    assert content(tmp_path / "there") == content(bundle)


def test_a_layer_of_two_sizes_is_coded_in_both(tmp_path):
    """As where one language has structure, and the rest of its layer bits."""
    weights, masks = weights_of(), masks_of(0.5, 1)
    plain = write_bundle(tmp_path / "plain", weights, {"zz": masks})
    expected = pack(plain, tmp_path / "p.s3r")["languages"]["zz"]
    # Of a layer that was cut the bits are fewer than the weights.
    cut = {"a": masks_of(0.5, 2)["a"][:40]}
    every = {"aa": cut, "bb": {"a": masks_of(0.9, 3)["a"][:40]}, "zz": masks}
    bundle = write_bundle(tmp_path / "b", weights, every)
    numbers = pack(bundle, tmp_path / "b.s3r")["languages"]
    assert numbers["zz"]["bound"] == expected["bound"]
    assert numbers["zz"]["masks"] == expected["masks"]
    assert numbers["aa"]["bound"] == pytest.approx(entropy(cut["a"]), abs=1)
    install(tmp_path / "b.s3r", tmp_path / "there")
    assert content(tmp_path / "there") == content(bundle)


def test_languages_without_masks_bear_no_consensus(tmp_path):
    codes = "aa bb cc".split()
    masks = {c: overlapping(0.1, 0.95, i) for i, c in enumerate(codes)}
    weight = np.random.default_rng(0).standard_normal((256, 256)).astype("f4")
    masks = {code: {"a": make(weight)} for code, make in masks.items()}
    bundle = write_bundle(tmp_path / "b", {"a": weight}, {**masks, "dd": {}})
    numbers = pack(bundle, tmp_path / "b.s3r")
    rows = [numbers["languages"][code] for code in codes]
    sent = sum(row["masks"] for row in rows) + numbers["consensus"]
    bound = [entropy(mask["a"]) for mask in masks.values()]
    told = sum(r["of_bound"] * b for r, b in zip(rows, bound, strict=True))
    assert numbers["consensus"] and told == pytest.approx(sent, rel=1e-6)
    assert numbers["languages"]["dd"]["of_bound"] is None


def test_magnitudes_of_bytes_are_those_of_their_scales(tmp_path):
    # Bytes alone say little, where channels are of unlike scales.
    rng = np.random.default_rng(0)
    levels = rng.integers(-64, 65, (512, 300)).astype(np.int8)
    scales = np.exp(2 * rng.standard_normal(300)).astype(np.float32)
    size = np.abs(levels * scales)
    mask = near_magnitude(size, 0.3, 0.01, 1)
    weights = {"a": levels}
    folder = write_bundle(
        tmp_path / "b", weights, {"xx": {"a": mask}}, {"a": scales}
    )
    row = pack(folder, tmp_path / "b.s3r")["languages"]["xx"]
    assert row["references"] == {"magnitude": 1}
    assert row["masks"] < 0.3 * row["bound"]
    install(tmp_path / "b.s3r", tmp_path / "there")
    assert content(tmp_path / "there") == content(folder)
    for wrong in (
        {"count": 7},
        {"count": 0},
        {"offset": 1 << 60},
        {"file": "xx.onnx"},
        {"count": 512 * 300},
    ):
        forge(
            tmp_path / "b.s3r",
            lambda h, wrong=wrong: h["layers"]["a"]["weight"]["scales"].update(
                wrong
            ),
        )
        with pytest.raises(FormatError, match="not a sound packed bundle"):
            install(tmp_path / "b.s3r", tmp_path / "not")
        pack(folder, tmp_path / "b.s3r")


def test_what_cannot_be_packed(bundle, tmp_path):
    with pytest.raises(NotFoundError, match="no such bundle"):
        pack(tmp_path / "gone", tmp_path / "b.s3r")
    with pytest.raises(SettingError, match="lies in the bundle"):
        pack(bundle, bundle / "b.s3r")
    (bundle / "backbone.bin").write_bytes(b"x")
    with pytest.raises(FormatError, match="backbone.bin is truncated"):
        pack(bundle, tmp_path / "b.s3r")
    assert not (tmp_path / "b.s3r").exists()


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


def test_without_zstandard(bundle, tmp_path, monkeypatch, capsys):
    pack(bundle, tmp_path / "b.s3r")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingDependencyError, match="pip install zstandard"):
        pack(bundle, tmp_path / "c.s3r")
    arguments = ["install", str(tmp_path / "b.s3r"), "--output", "x"]
    assert main(arguments) == 2
    line = capsys.readouterr().err
    assert line.startswith("s3router: error: ") and line.count("\n") == 1


def test_it_installs_without_onnx_and_torch(bundle, tmp_path):
    pack(bundle, tmp_path / "b.s3r")
    code = (
        "import sys; from s3router.formats.install import install\n"
        "install(*sys.argv[1:])\n"
        "print(*sorted({n.split('.')[0] for n in sys.modules}))\n"
    )
    there = tmp_path / "there"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "b.s3r"), str(there)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    loaded = set(done.stdout.split())
    assert "zstandard" in loaded, done.stderr
    assert not loaded & {"onnx", "onnx_ir", "torch", "onnxruntime"}
    assert content(there) == content(bundle)


@pytest.mark.parametrize("chunk", [1 << 20, 999_999])
def test_large_files_are_cut_and_their_bytes_put_apart(
    tmp_path, monkeypatch, chunk
):
    monkeypatch.setattr("s3router.formats.pack.CHUNK", chunk)
    weight = np.random.default_rng(0).standard_normal((768, 3072))
    weight = {"a": weight.astype(np.float32)}
    bundle = write_bundle(tmp_path / "b", weight, {"xx": {}})
    size = pack(bundle, tmp_path / "b.s3r")["bytes"]
    install(tmp_path / "b.s3r", tmp_path / "there")
    assert content(tmp_path / "there") == content(bundle)
    # Exponents of weights of one kind take three of their eight bits.
    assert size < 0.88 * (bundle / "backbone.bin").stat().st_size
