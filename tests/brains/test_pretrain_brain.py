"""The pieces between pre-training's stages, by hand-made references."""

import numpy as np
import pytest
import speechbrain as sb
import torch

from s3router.brains.learning_curve import LearningCurve
from s3router.brains.pretrain import UnitBrain
from s3router.brains.pretrain_audio import (
    FasterCopies,
    MelCrops,
    as_float,
    clip_speed,
    degraded_item,
    held_out,
)
from s3router.brains.pretrain_card import BEGIN, END, measured_worth
from s3router.brains.pretrain_layers import phones_of_frames
from s3router.brains.pretrain_units import FramesOf, MFCCFrames, make_units
from s3router.data.crops import CropBatch
from s3router.data.degrade import SPEEDS
from s3router.data.ragged import Ragged, write_ragged
from s3router.errors import DataError
from s3router.formats.files import read_json
from s3router.models.frame_grid import FrameGrid
from s3router.models.units import log_mel

FAST, SLOW = FrameGrid(400, 320), FrameGrid(720, 640)


@pytest.fixture
def audio(tmp_path):
    generator = np.random.default_rng(0)
    clips = [
        (8000 * generator.standard_normal(n)).clip(-32767, 32767)
        for n in (9000, 5000, 20000, 1700)
    ]
    write_ragged(tmp_path / "audio", clips, "int16")
    return Ragged(tmp_path / "audio", "int16")


def test_a_curve_forgets_what_is_done_again(tmp_path):
    curve = LearningCurve(tmp_path / "a.json")
    for epoch in (1, 2, 3):
        curve.add(epoch=epoch, loss=1 / epoch)
    resumed = LearningCurve(tmp_path / "a.json")
    resumed.rewind(2)
    resumed.add(epoch=3, loss=9.0)
    entries = read_json(tmp_path / "a.json")["entries"]
    assert [e["epoch"] for e in entries] == [1, 2, 3]
    assert entries[-1]["loss"] == 9.0
    seconds = [e["cpu_seconds"] for e in entries]
    assert seconds == sorted(seconds)


def test_the_loss_is_masked_plus_weighted_seen_cross_entropy():
    torch.manual_seed(0)
    logits = torch.randn(2, 6, 4)
    units = torch.randint(4, (2, 6))
    units[1, 4:] = -100
    hidden = torch.zeros(2, 6, dtype=torch.bool)
    hidden[0, 1:3] = hidden[1, 3] = True
    batch = CropBatch(logits, torch.tensor([6, 4]), hidden, units)
    brain = UnitBrain(None, None, hparams={"seen_weight": 0.5})
    loss = brain.compute_objectives((logits, batch), batch, sb.Stage.VALID)

    sums = {True: [], False: []}
    right = {True: [], False: []}
    for row, column in np.argwhere(units.numpy() >= 0):
        scores = logits[row, column].double().numpy()
        unit = int(units[row, column])
        cost = np.log(np.exp(scores).sum()) - scores[unit]
        sums[bool(hidden[row, column])].append(cost)
        right[bool(hidden[row, column])].append(scores.argmax() == unit)
    expected = np.mean(sums[True]) + 0.5 * np.mean(sums[False])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    brain.hparams.frames_per_second = 50
    means = brain.means(brain.sums.totals())
    assert means["masked_loss"] == pytest.approx(np.mean(sums[True]))
    assert means["unmasked_loss"] == pytest.approx(np.mean(sums[False]))
    assert means["masked_accuracy"] == pytest.approx(np.mean(right[True]))
    assert means["unmasked_accuracy"] == pytest.approx(np.mean(right[False]))
    assert means["masked_share"] == pytest.approx(3 / 10)
    assert means["hours"] == pytest.approx(10 / 50 / 3600)


def test_held_out_clips_are_some_and_their_parts_stay_together():
    items = [{"id": f"clip{n // 2}"} for n in range(400)]
    valid = held_out(items, 0.1)
    assert valid.sum() == 40
    assert (valid[::2] == valid[1::2]).all()
    few = held_out([{"id": "a"}, {"id": "b"}], 0.01)
    assert few.sum() == 1
    with pytest.raises(DataError, match="two clips"):
        held_out([{"id": "a"}, {"id": "a"}], 0.5)


def test_degraded_items_repeat_by_seed(audio):
    lengths = set()
    for seed in range(5, 12):
        first = degraded_item(audio, 2, seed=seed)
        np.testing.assert_array_equal(first, degraded_item(audio, 2, seed=seed))
        speed = clip_speed(2, seed)
        assert len(first) == pytest.approx(20000 / speed, abs=1)
        assert first.mean() == pytest.approx(0, abs=1e-3)
        assert first.std() == pytest.approx(1, abs=1e-2)
        lengths.add(len(first))
    assert len(lengths) > 2
    assert not np.array_equal(
        degraded_item(audio, 2, seed=5)[:9000],
        degraded_item(audio, 2, seed=6)[:9000],
    )


def test_all_speeds_occur_and_are_those_of_the_copies(audio):
    drawn = [clip_speed(index, 7) for index in range(200)]
    assert set(drawn) == set(SPEEDS)
    shown = FasterCopies(SLOW, 7)
    for clip in (0, 3, 11):
        expected = SLOW.sped_up(9, drawn[clip], 6)
        assert shown(clip, 9, 6).tolist() == expected.tolist()


@pytest.mark.parametrize("grid", [FAST, SLOW])
def test_mel_crops_pair_degraded_samples_with_clean_bands(audio, grid):
    data = MelCrops(audio, np.ones(4), 5, grid, clips=3, seconds=0.5, bins=20)
    data.set_epoch(2)
    wavs, bands = data[3]
    assert wavs.shape == (3, 8000)
    assert bands.shape == ((3, 24, 20) if grid is FAST else (3, 12, 40))
    for first, second in zip((wavs, bands), data[3], strict=True):
        assert first.equal(second)
    # Bands are those of what is heard, degraded or not, by clip.
    own = log_mel(wavs, 20, grid).numpy()
    mean = own.mean(1, keepdims=True)
    deviation = own.std(1, ddof=1, keepdims=True)
    np.testing.assert_allclose(
        bands, (own - mean) / (deviation + 0.1), atol=1e-4
    )


def test_about_half_of_the_mel_crops_are_degraded(audio, monkeypatch):
    seen = []

    def noted(one, other, generator):
        seen.append(one is other)
        return one

    monkeypatch.setattr("s3router.brains.pretrain_audio.degrade", noted)
    data = MelCrops(audio, np.ones(4), 50, FAST, clips=4, seconds=0.1)
    for number in range(50):
        data[number]
    assert 70 < len(seen) < 130 and not any(seen)


@pytest.mark.parametrize("grid", [FAST, SLOW])
def test_mfcc_frames_are_normalised_by_speaker(audio, grid):
    frames = MFCCFrames(audio, ["a", "a", "b", "b"], grid)
    for pair in ((0, 1), (2, 3)):
        both = np.concatenate([frames(index) for index in pair])
        np.testing.assert_allclose(both.mean(0), 0.0, atol=2e-2)
        np.testing.assert_allclose(both.std(0), 1.0, atol=2e-2)


def test_units_label_every_frame_once(tmp_path):
    class Lines(FramesOf):
        calls = 0

        def __len__(self):
            return 6

        def __call__(self, index):
            Lines.calls += 1
            values = np.arange(20) % 3 + 0.01 * index
            return values[: 10 + index, None].astype("f4")

    units = make_units(Lines(), tmp_path / "u", 3, 1000, seed=0)
    assert units.lengths.tolist() == [10, 11, 12, 13, 14, 15]
    name_of = dict(zip(range(3), units[0][:3].tolist(), strict=True))
    for index in range(6):
        expected = [name_of[n % 3] for n in range(10 + index)]
        assert units[index].tolist() == expected
    numbers = read_json(tmp_path / "u.json")
    assert numbers["used"] == 3
    calls = Lines.calls
    make_units(Lines(), tmp_path / "u", 3, 1000, seed=0)
    assert Lines.calls == calls  # what is there is not made again


def test_phones_are_those_at_the_middle_of_frames():
    samples = np.zeros(400 + 4 * 320)
    phones = [("'a:", 0), ("_:", 521), ("t", 850), (",i", 1170)]
    # Middles are 200, 520, 840, 1160 and 1480.
    assert phones_of_frames(samples, phones).tolist() == [
        "a:",
        "a:",
        "",
        "t",
        "i",
    ]


def test_samples_become_zero_mean_and_unit_variance():
    wave = as_float(np.array([1000, 3000, 5000], dtype=np.int16))
    np.testing.assert_allclose(wave.mean(), 0, atol=1e-6)
    np.testing.assert_allclose(wave.std(), 1, atol=1e-6)


def test_a_card_keeps_what_was_measured(tmp_path):
    card = tmp_path / "README.md"
    assert "Not measured yet." in measured_worth(card)
    card.write_text(f"# A\n{BEGIN}\nCER 0.5 of 0.9\n{END}\n# B\n")
    section = measured_worth(card)
    assert "CER 0.5 of 0.9" in section and "Not measured" not in section
    card.write_text(section)
    assert measured_worth(card) == section
