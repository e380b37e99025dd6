"""Batches of crops: from the right place, by seed, with the right odds."""

import numpy as np
import pytest

from s3router.data.crops import CropBatches, clip_probabilities, draw_spans
from s3router.data.ragged import Ragged, write_ragged

LENGTHS = (40, 300, 17, 120, 5)


@pytest.fixture
def stores(tmp_path):
    """Features and units that say which clip and frame they are."""
    clean = [
        np.stack([np.full(n, clip), np.arange(n)], axis=1)
        for clip, n in enumerate(LENGTHS)
    ]
    write_ragged(tmp_path / "clean", clean, "float16")
    write_ragged(tmp_path / "noisy", [-1 - x for x in clean], "float16")
    # Units know one frame more than features, as after rounding of clips.
    units = [np.arange(n + 1) + 1000 * c for c, n in enumerate(LENGTHS)]
    write_ragged(tmp_path / "units", units, "uint16")
    return (
        [Ragged(tmp_path / name, "float16") for name in ("clean", "noisy")],
        Ragged(tmp_path / "units", "uint16"),
    )


def batches_of(stores, **options):
    versions, units = stores
    defaults = {"batches": 24, "batch_frames": 150, "crop_frames": 64}
    probabilities = np.full(len(LENGTHS), 1 / len(LENGTHS))
    return CropBatches(
        versions, units, probabilities, **{**defaults, **options}
    )


def test_features_and_units_are_of_the_same_frames(stores):
    data = batches_of(stores)
    versions = set()
    for number in range(len(data)):
        batch = data[number]
        assert batch.hidden.shape == batch.units.shape
        for row, frames in enumerate(batch.frames.tolist()):
            clip, frame = batch.features[row, :frames].T
            noisy = bool(clip[0] < 0)
            versions.add(noisy)
            if noisy:
                clip, frame = -1 - clip, -1 - frame
            expected = frame + 1000 * clip
            assert batch.units[row, :frames].tolist() == expected.tolist()
            assert (batch.units[row, frames:] == -100).all()
            assert not batch.hidden[row, frames:].any()
            assert not batch.features[row, frames:].any()
    assert versions == {False, True}


def test_an_epoch_has_the_frames_that_were_asked_for(stores):
    data = batches_of(stores, batches=80)
    frames = [int(data[n].frames.sum()) for n in range(len(data))]
    assert np.mean(frames) == pytest.approx(150, rel=0.1)
    assert min(frames) > 0


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
    data.set_epoch(4)
    assert late.features.shape != data[17].features.shape or not (
        late.features.equal(data[17].features)
    )


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
        clip
        for number in range(16)
        for clip in data[number].features[:, 0, 0].tolist()
    }
    assert seen == {0.0, 3.0}


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
