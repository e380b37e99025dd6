"""The benchmark of exports: its masks, its bars, and the command."""

import math

import numpy as np
import pytest
from benchmark_commands import run_benchmark
from export_bars import BARS, SHAPE, Bar, compare_bars, run_ratio
from export_variants import (
    VARIANTS,
    NotAvailable,
    make_encoder,
    make_masks,
    run_command,
)
from transformers import AutoModel, Wav2Vec2Model

from s3router.evaluation.results import read_result


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return the small encoder."""
    folder = tmp_path_factory.mktemp("small") / "encoder"
    return AutoModel.from_pretrained(make_encoder("small", folder))


def test_half_an_encoder_is_not_used_again(tmp_path, monkeypatch):
    def stop(self, folder):
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Wav2Vec2Model, "save_pretrained", stop)
        with pytest.raises(KeyboardInterrupt):
            make_encoder("small", tmp_path / "encoder")
    made = make_encoder("small", tmp_path / "encoder")
    assert AutoModel.from_pretrained(made).config.hidden_size == 64


def shapes(model, masks: dict) -> dict:
    return {
        name: tuple(model.get_submodule(name).weight.shape) for name in masks
    }


@pytest.mark.parametrize(("kind", "count"), [("all", 12), ("feed_forward", 4)])
def test_masks_without_structure_remove_a_share(model, kind, count):
    masks = make_masks(model, kind, 0.1, 0)
    assert len(masks) == count
    assert shapes(model, masks) == {k: m.shape for k, m in masks.items()}
    entries = np.concatenate([mask.reshape(-1) for mask in masks.values()])
    assert abs((~entries).mean() - 0.1) < 5 * math.sqrt(0.09 / entries.size)
    again = make_masks(model, kind, 0.1, 0)
    assert all((masks[name] == again[name]).all() for name in masks)
    other = make_masks(model, kind, 0.1, 1)
    assert any((masks[name] != other[name]).any() for name in masks)


def test_overlapping_masks_have_most_in_common(model):
    first, second = (
        make_masks(model, "overlapping", 0.1, seed) for seed in (0, 1)
    )
    for name, mask in first.items():
        assert mask.sum() == second[name].sum()
        common = (~mask & ~second[name]).sum() / (~mask).sum()
        assert abs(common - 0.95) < 0.02


def test_structured_masks_remove_whole_units(model):
    masks = make_masks(model, "front_end", 0.5, 0)
    assert shapes(model, masks) == {k: m.shape for k, m in masks.items()}
    for layer in range(2):
        part = f"encoder.layers.{layer}."
        heads = masks[f"{part}attention.q_proj"].reshape(4, -1)
        assert sorted(heads.mean(1)) == [0, 0, 1, 1]
        rows = heads.all(1).repeat(16)
        for role in "kv":
            mask = masks[f"{part}attention.{role}_proj"]
            assert (mask == rows[:, None]).all()
        assert (masks[f"{part}attention.out_proj"] == rows).all()
        before = masks[f"{part}feed_forward.intermediate_dense"]
        assert before.all(1).sum() == 128 == before.any(1).sum()
        after = masks[f"{part}feed_forward.output_dense"]
        assert (after == before.all(1)).all()
    for layer in range(6):
        name = "feature_extractor.conv_layers.{}.conv"
        rows = masks[name.format(layer)].any((1, 2))
        columns = masks[name.format(layer + 1)].any((0, 2))
        assert rows.sum() == 16 and (rows == columns).all()
    assert masks[name.format(6)].any((1, 2)).all()


def test_what_the_export_refuses_is_not_available(tmp_path):
    with pytest.raises(NotAvailable, match="unrecognized arguments: --no-such"):
        run_command("export", tmp_path, "--output=x", "--no-such=1")
    with pytest.raises(NotAvailable, match="no such"):
        run_command("export", tmp_path / "none", f"--output={tmp_path / 'x'}")


def timed(ours: list[float], dense: list[float]) -> dict:
    """Return a row of clips with these minima."""
    clips = {
        str(i): {
            "cpu": {"minimum": one},
            "dense": {"cpu": {"minimum": other}},
        }
        for i, (one, other) in enumerate(zip(ours, dense, strict=True))
    }
    device = {"clock": "cpu", "clips": clips}
    return {
        "variant": "v",
        "mode": "fold",
        "why_not": None,
        "devices": {"1 thread": device},
    }


def test_bars_are_reached_or_missed_by_so_much():
    rows = [timed([1.0, 3.0], [2.0, 2.0])]
    assert run_ratio(rows[0]) == 1.0
    bars = [
        Bar("a", 1.0, "x", "v", "fold", run_ratio),
        Bar("b", 0.9, "x", "v", "fold", run_ratio),
        Bar("c", 9e6, "bytes", "v", "fold", lambda row: 1e7),
        Bar("d", 50.0, "ms", "v", "fold", lambda row: None),
        Bar("e", 1.0, "x", "w", "fold", run_ratio),
        Bar("f", 1.0, "x", "x", "fold", run_ratio),
    ]
    rows.append({"variant": "w", "mode": "fold", "why_not": "refused"})
    found = compare_bars(rows, SHAPE, bars)
    assert [bar["verdict"] for bar in found] == [
        *("reached", "missed by 0.100x", "missed by 1.0 MB"),
        *("not measured", "not available: refused", "not measured"),
    ]
    assert [bar["value"] for bar in found[:3]] == [1.0, 1.0, 1e7]
    small = compare_bars(rows, "small", bars)
    assert {bar["verdict"] for bar in small[:3]} == {f"a bar of {SHAPE}"}


def test_every_bar_looks_at_a_row_that_there_is():
    rows = {
        (variant.name, mode)
        for variant in VARIANTS
        for mode in variant.modes or [None]
    }
    assert {(bar.variant, bar.mode) for bar in BARS} <= rows


@pytest.mark.slow
def test_the_command_measures_and_writes(tmp_path):
    arguments = (
        *("export.py", "--shape", "small", "--seconds", 0.3),
        *("--threads", 1, "--rounds", 1, "--repeats", 1),
        *("--work", tmp_path / "work", "--output", tmp_path / "r.json"),
    )
    done = run_benchmark(*arguments, "--only", "shared", "fp16")
    assert done.returncode == 0, done.stderr
    # The second goes on from the first.
    only = ("--only", "shared", "shared_10", "fp16")
    first = read_result(tmp_path / "r.json")["metrics"]["rows"]
    done = run_benchmark(*arguments, *only)
    assert done.returncode == 0, done.stderr
    assert "shared: exporting" not in done.stdout
    assert "shared_10: exporting" in done.stdout
    metrics = read_result(tmp_path / "r.json")["metrics"]
    assert metrics["rows"][:3] == first[:3]
    rows = {(row["variant"], row["mode"]): row for row in metrics["rows"]}
    fold = rows["shared", "fold"]
    # Another shape has other encoders and rows.
    (own,) = (tmp_path / "work").glob("small/*/shared/bundle/aa.onnx")
    assert (tmp_path / "work" / "small" / "encoder").is_dir()
    tokens = own.with_name("aa.tokens.txt")
    assert fold["own_bytes"] == own.stat().st_size + tokens.stat().st_size
    assert fold["head_bytes"] == 4 * (64 * 32 + 32)
    told = fold["devices"]["1 thread"]["clips"]["0.3 s"]
    ratio = told["cpu"]["minimum"] / told["dense"]["cpu"]["minimum"]
    assert told["of_dense"] == ratio
    assert fold["parity"]["aa"]["max_error"] < 1e-4
    assert rows["shared", "lean"]["switching"]["switch"]["cpu"]["median"] > 0
    assert rows["shared_10", None]["own_bytes"] > 0
    for key, row in rows.items():
        if row["why_not"]:
            assert row["why_not"] in done.stdout, key
    bars = {bar["what"]: bar for bar in metrics["bars"]}
    assert bars["fold: run time"]["value"] == ratio
    assert f"{ratio:.3f}x" in done.stdout
    assert bars["int8: run time"]["verdict"] == "not measured"
