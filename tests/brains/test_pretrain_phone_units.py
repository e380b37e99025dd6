"""Phones as targets, against hand-made files of phones."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pretrain_toys import CHANNELS, settings, small_encoder
from torch.nn import functional

from s3router.brains.pretrain import UnitBrain
from s3router.brains.pretrain_phone_units import (
    check_known,
    clips_with_targets,
    keep_known_phones,
    make_phone_units,
    phones_beside,
    unit_count,
)
from s3router.brains.pretrain_stages import run_iteration
from s3router.brains.running_sums import RunningSums
from s3router.data.crops import UNKNOWN, CropBatch, CropBatches, Version
from s3router.data.ragged import Ragged, write_ragged
from s3router.errors import DataError
from s3router.formats.files import read_json
from s3router.models.frame_grid import FrameGrid

GRID = FrameGrid(window=1056, hop=640)


def clip(folder, name, phones=None):
    """Write the phones of a clip, if any; return the path of its audio."""
    if phones is not None:
        (folder / f"{name}.json").write_text(json.dumps(phones))
    return str(folder / f"{name}.flac")


@pytest.fixture
def made(tmp_path):
    """Two synthetic clips and a human one: path and units."""
    # Middles of frames: 528, 1168, 1808, 2448, 3088.
    spoken = [["'a", 0], ["_:", 1168], ["t", 1809], [",i:", 2449]]
    wavs = [
        clip(tmp_path, "one", spoken),
        clip(tmp_path, "human"),
        clip(tmp_path, "two", [["_", 0], ["a", 529], ["t", 2448]]),
    ]
    samples = [1056 + 4 * 640, 9000, 1056 + 3 * 640 + 639]
    path = tmp_path / "units_1.u16"
    units = make_phone_units(
        wavs, samples, [5, 7, 4], GRID, path, {"of": "phones"}, least=2
    )
    return path, units


def test_targets_are_the_phones_at_the_middles_of_frames(made):
    path, units = made
    record = read_json(path.with_name("units_1.u16.json"))
    # One frame has i:, too few to be a unit. Two clips have pauses.
    assert record["names"] == ["", "a", "t"] and record["of"] == "phones"
    # one: 'a, pause (from its middle on), pause, t, i:
    assert units[0].tolist() == [1, 0, 0, 2, UNKNOWN]
    assert units[1].tolist() == [UNKNOWN] * 7
    assert units[2].tolist() == [0, 1, 1, 2]
    shares = np.array([3, 3, 2]) / 8
    assert record["unigram_accuracy"] == pytest.approx(3 / 8)
    assert record["unigram_entropy"] == pytest.approx(
        -(shares * np.log(shares)).sum()
    )
    assert clips_with_targets(units).tolist() == [True, False, True]


def test_known_phones_are_kept_and_others_have_found_units(made, tmp_path):
    known, phones = made
    found = tmp_path / "found"
    write_ragged(found, [np.arange(n) % 3 for n in phones.lengths], "uint16")
    path = tmp_path / "both"
    both = keep_known_phones(found, known, path, {"of": 3})
    assert both[0].tolist() == phones[0].tolist()
    assert both[2].tolist() == phones[2].tolist()
    assert both[1].tolist() == [3, 4, 5, 3, 4, 5, 3]
    record = read_json(tmp_path / "both.json")
    assert record["names"] == ["", "a", "t", "unit 0", "unit 1", "unit 2"]
    assert record["of"] == 3
    told = [u for clip in both for u in clip.tolist() if u != UNKNOWN]
    shares = np.unique(told, return_counts=True)[1] / len(told)
    entropy = -(shares * np.log(shares)).sum()
    assert record["unigram_entropy"] == pytest.approx(entropy)


def test_what_is_there_is_not_made_again(made):
    path, units = made
    again = make_phone_units([], [], [], GRID, path)
    assert again[0].tolist() == units[0].tolist()


def test_a_recipe_finds_how_many_units_there_are(made):
    path, _ = made
    iterations = [{"of": "phones"}, {"of": "mfcc", "units": 7}]
    hparams = {"iterations": iterations, "work_folder": path.parent}
    assert unit_count(1, hparams) == 3
    assert unit_count(2, hparams) == 7


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '{"text": "a", "start": 0}',
        "[]",
        '["ab", "cd"]',
        "[[1, 2]]",
        '[["a", "0"]]',
        '[["a", 5], ["b", 0]]',
        "3",
        "no JSON",
        '[["a", 0, 1]]',
    ],
)
def test_other_json_beside_a_recording_is_no_phones(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    assert phones_beside(str(tmp_path / "a.wav")) is None


def test_parts_of_a_long_clip_have_no_known_phones(tmp_path):
    phones = [["a", 0], ["b", 1000]]
    wavs = [clip(tmp_path, "long", phones)] * 2
    wavs.append(clip(tmp_path, "short", phones))
    units = make_phone_units(
        wavs, [1696] * 3, [2] * 3, GRID, tmp_path / "u", least=1
    )
    found = [units[number].tolist() for number in range(3)]
    assert found == [[UNKNOWN] * 2, [UNKNOWN] * 2, [0, 1]]


def test_too_few_phones_are_said(tmp_path):
    wavs = [clip(tmp_path, "a", [["a", 0], ["b", 600]])]
    with pytest.raises(DataError, match="200 frames or more, here are 0"):
        make_phone_units(wavs, [2336], [3], GRID, tmp_path / "u")
    assert not (tmp_path / "u").exists()


def test_a_pool_without_known_phones_is_said_before_training(tmp_path):
    known = clip(tmp_path, "known", [["a", 0]])
    human = clip(tmp_path, "human")
    held_out = np.array([False, True])
    phones, mfcc = [{"of": "phones"}], [{"of": "mfcc"}]
    check_known([known, known], held_out, phones)
    check_known([human, human], held_out, mfcc)
    with pytest.raises(DataError, match="set synthetic_hours"):
        check_known([human, known], held_out, phones)
    with pytest.raises(DataError, match="raise held_out_share"):
        check_known([known, human], held_out, phones)


@pytest.fixture
def stores(tmp_path):
    """Features that name their clip; units of clips 0 and 3 are known."""
    features = [np.full((30, CHANNELS), n) for n in range(6)]
    write_ragged(tmp_path / "features", features, "float16")
    units = [np.full(30, UNKNOWN, np.uint16) for _ in range(6)]
    units[0][:] = np.arange(30) % 3
    units[3][10:] = 1
    write_ragged(tmp_path / "units", units, "uint16")
    versions = [Version(Ragged(tmp_path / "features", "float16"))]
    return versions, Ragged(tmp_path / "units", "uint16")


def test_frames_without_a_phone_have_no_target(stores):
    versions, units = stores
    probabilities = np.array([0, 0, 0, 1.0, 0, 0])
    batch = CropBatches(
        versions, units, probabilities, 1, batch_frames=30, crop_frames=30
    )[0]
    assert batch.units.dtype == torch.int64
    for crop in batch.units.tolist():
        assert set(crop) <= {-100, 1}
    assert -100 in batch.units.unique().tolist()


def test_frames_without_a_target_give_no_loss():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, 4, generator=generator)
    units = torch.tensor([[0, -100, 2, 1, -100, 3], [-100] * 6])
    hidden = torch.tensor([[True, True, False, True, False, False]] * 2)
    batch = CropBatch(torch.zeros(2, 6, 1), torch.tensor([6, 6]), hidden, units)
    brain = SimpleNamespace(
        sums=RunningSums(), hparams=SimpleNamespace(seen_weight=0.5)
    )
    brain.sums.start()
    loss = UnitBrain.objective(brain, (logits, batch), batch)
    first = functional.log_softmax(logits[0], -1)
    masked = -(first[0, 0] + first[3, 1]) / 2
    seen = -(first[2, 2] + first[5, 3]) / 2
    assert loss.item() == pytest.approx((masked + 0.5 * seen).item())
    sums = brain.sums.totals()
    assert sums["masked_frames"] == sums["unmasked_frames"] == 2
    # What is there instead of a target changes nothing.
    logits[1] += 100
    logits[0, 1] -= 100
    again = UnitBrain.objective(brain, (logits, batch), batch)
    assert again.item() == pytest.approx(loss.item())


def test_clips_without_targets_are_never_drawn(stores, tmp_path, monkeypatch):
    versions, units = stores
    pool = SimpleNamespace(
        grid=GRID,
        train=np.array([0.0, 0.3, 0.1, 0.2, 0.2, 0.2]),
        valid=np.array([0.5, 0.5, 0.0, 0.0, 0.0, 0.0]),
    )
    hparams = settings(
        tmp_path,
        iterations=[{"units": 3, "epochs": 1, "of": "mfcc"}],
        epoch_steps=4,
    )
    drawn = {}
    crop = CropBatches._crop

    def noted(data, clip, *args):
        drawn.setdefault(data.batches, set()).add(clip)
        return crop(data, clip, *args)

    monkeypatch.setattr(CropBatches, "_crop", noted)
    quiet = {"device": "cpu", "noprogressbar": True}
    encoder = small_encoder()
    run_iteration(1, encoder, pool, versions, units, hparams, quiet)
    assert drawn == {4: {3}, 8: {0}}  # four steps; eight that validate
