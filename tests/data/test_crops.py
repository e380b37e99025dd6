"""Batches of crops: from the right place, by seed, with the right odds."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from s3router.data.crops import (
    CropBatch,
    CropBatches,
    Version,
    clip_probabilities,
    crop_lengths,
    draw_spans,
)
from s3router.data.ragged import Ragged, write_ragged
from s3router.data.shares import Share
from s3router.errors import DataError

LENGTHS = (40, 300, 17, 120, 5)


def shown_at_half_pace(clip, count, limit):
    """Frame t of the slow copy shows frame t // 2, of an odd clip one later."""
    return np.clip(np.arange(count) // 2 + clip % 2, 0, limit - 1)


@pytest.fixture
def stores(tmp_path):
    """Features and units that say which version, clip and frame they are."""

    def rows(version, clip, count):
        return np.stack(
            [np.full(count, n) for n in (version, clip)] + [np.arange(count)],
            axis=1,
        )

    for version, pace in enumerate((1, 1, 2)):
        write_ragged(
            tmp_path / f"{version}",
            [rows(version, c, pace * n) for c, n in enumerate(LENGTHS)],
            "float16",
        )
    # Units know one frame more than features, as after rounding of clips.
    units = [np.arange(n + 1) + 1000 * c for c, n in enumerate(LENGTHS)]
    write_ragged(tmp_path / "units", units, "uint16")
    shown = (None, None, shown_at_half_pace)
    return (
        [
            Version(Ragged(tmp_path / f"{n}", "float16"), shown[n])
            for n in range(3)
        ],
        Ragged(tmp_path / "units", "uint16"),
    )


def batches_of(stores, **options):
    versions, units = stores
    defaults = {"batches": 24, "batch_frames": 150, "crop_frames": 64}
    probabilities = np.full(len(LENGTHS), 1 / len(LENGTHS))
    return CropBatches(
        versions, units, probabilities, **{**defaults, **options}
    )


def test_units_are_those_of_the_frames_that_are_shown(stores):
    data = batches_of(stores, batches=60)
    seen = set()
    for number in range(len(data)):
        batch = data[number]
        assert batch.features.dtype == torch.float32
        assert batch.hidden.shape == batch.units.shape
        for row in range(len(batch.frames)):
            version, clip, frame = batch.features[row].numpy().T.astype(int)
            assert len(set(version)) == len(set(clip)) == 1
            assert (np.diff(frame) == 1).all()
            clip = clip[0]
            if version[0] == 2:
                of_copy = shown_at_half_pace(clip, frame[-1] + 1, 1 << 20)
                frame = np.minimum(of_copy[frame], LENGTHS[clip])
            seen.add(int(version[0]))
            expected = frame + 1000 * clip
            assert batch.units[row].tolist() == expected.tolist()
    assert seen == {0, 1, 2}


def test_all_crops_of_a_batch_have_one_length_of_few(stores):
    data = batches_of(stores, batches=60)
    lengths = set()
    for number in range(60):
        batch = data[number]
        (length,) = set(batch.frames.tolist())
        assert batch.features.shape[1] == length
        assert len(batch.frames) == max(1, 150 // length)
        lengths.add(length)
    assert lengths <= set(crop_lengths(64).tolist())
    assert 64 in lengths and 5 in lengths


def test_crop_lengths_are_every_one_then_so_many_in_an_octave():
    lengths = crop_lengths(200)
    assert lengths[-1] == 200 and lengths[0] == 1
    assert (np.diff(lengths) > 0).all()
    # No crop loses more than a fifth of what a clip has.
    assert (lengths[1:] / lengths[:-1] <= 1.25)[7:].all()
    assert crop_lengths(1).tolist() == [1]


def test_a_batch_depends_on_seed_epoch_and_number_only(stores):
    data = batches_of(stores)
    data.set_epoch(3)
    late = data[17]
    again = batches_of(stores)
    again.set_epoch(3)
    for _ in range(3):
        again[2]
    for first, second in zip(late, again[17], strict=True):
        assert first.equal(second)
    others = [batches_of(stores, seed=1), batches_of(stores)]
    others[0].set_epoch(3)
    others[1].set_epoch(4)
    for other in others:
        other = other[17]
        assert late.features.shape != other.features.shape or not (
            late.features.equal(other.features)
        )


def test_a_loader_with_workers_gives_the_same(stores):
    data = batches_of(stores, batches=6)
    data.set_epoch(2)
    with_workers = DataLoader(data, batch_size=None, num_workers=2)
    for number, batch in enumerate(with_workers):
        assert isinstance(batch, CropBatch)
        for first, second in zip(batch, data[number], strict=True):
            assert first.equal(second)


def test_what_is_never_drawn_is_never_seen(stores):
    versions, units = stores
    data = CropBatches(
        versions,
        units,
        np.array([0.5, 0.0, 0.0, 0.5, 0.0]),
        batches=16,
        batch_frames=150,
        degraded_share=0.0,
    )
    seen = {
        (version, clip)
        for number in range(16)
        for version, clip in data[number].features[:, 0, :2].tolist()
    }
    assert seen == {(0.0, 0.0), (0.0, 3.0)}


def test_nothing_to_draw_is_said(stores):
    versions, units = stores
    with pytest.raises(DataError, match="no clip to draw"):
        CropBatches(versions, units, np.zeros(len(LENGTHS)), batches=1)


def test_moving_a_batch_leaves_its_lengths_on_the_cpu(stores):
    moved = batches_of(stores)[0].to("meta")
    assert moved.features.is_meta and moved.units.is_meta
    assert not moved.frames.is_meta


def test_processes_take_turns(stores):
    data = batches_of(stores, batches=8)
    shares = [Share(data, number, 2) for number in range(2)]
    for share in shares:
        share.set_epoch(5)
        assert len(share) == 4
        with pytest.raises(IndexError):
            share[4]
    for number in range(8):
        first, second = shares[number % 2][number // 2], data[number]
        assert first.units.equal(second.units)


@pytest.mark.parametrize("alpha", [1.0, 0.5, 0.0])
def test_languages_are_drawn_by_a_power_of_their_share(alpha):
    lengths = np.array([10.0, 30.0, 20.0, 100.0])
    languages = ["a", "a", "b", "c"]
    drawn = clip_probabilities(lengths, languages, alpha)
    share = np.array([40, 20, 100]) / 160
    expected = share**alpha / (share**alpha).sum()
    assert drawn.sum() == pytest.approx(1.0)
    np.testing.assert_allclose([drawn[:2].sum(), drawn[2], drawn[3]], expected)
    assert drawn[1] == pytest.approx(3 * drawn[0])


def test_one_language_is_drawn_by_length_whatever_alpha_is():
    for alpha in (0.0, 0.7, 1.0):
        drawn = clip_probabilities(np.array([1.0, 3.0]), ["a", "a"], alpha)
        np.testing.assert_allclose(drawn, [0.25, 0.75])


def test_spans_have_their_length_and_share():
    generator = np.random.default_rng(0)
    frames = np.array([400, 400, 50, 3])
    shares = []
    for _ in range(50):
        hidden = draw_spans(frames, 0.5, 8, generator)
        assert hidden.shape == (4, 400)
        assert not hidden[2, 50:].any() and not hidden[3, 3:].any()
        assert hidden.any(axis=1).all()
        edges = np.flatnonzero(np.diff(hidden[0].astype(int), prepend=0))
        runs = np.diff(np.append(edges, 400))[::2]
        assert (runs >= 8).all()
        shares.append(hidden[:2].mean())
    # Spans overlap: 1 - exp(-0.5) of the frames are hidden.
    assert np.mean(shares) == pytest.approx(1 - np.exp(-0.5), abs=0.01)
