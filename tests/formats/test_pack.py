"""Bundles for sending: the same bytes come back, in few of them, or nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundle_writer import content, masks_of, weights_of, write_bundle

from s3router.cli import main
from s3router.errors import (
    FormatError,
    MismatchError,
    MissingDependencyError,
    NotFoundError,
    SettingError,
)
from s3router.formats.bundle import Bundle
from s3router.formats.files import folder_sizes
from s3router.formats.install import install
from s3router.formats.pack import pack
from s3router.formats.pack_report import format_report


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


def test_what_cannot_be_packed(bundle, tmp_path):
    with pytest.raises(NotFoundError, match="no such bundle"):
        pack(tmp_path / "gone", tmp_path / "b.s3r")
    with pytest.raises(SettingError, match="lies in the bundle"):
        pack(bundle, bundle / "b.s3r")
    (bundle / "backbone.bin").write_bytes(b"x")
    with pytest.raises(FormatError, match="backbone.bin is truncated"):
        pack(bundle, tmp_path / "b.s3r")
    assert not (tmp_path / "b.s3r").exists()


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
