"""Clean targets behind hidden frames, and distractors of the same clip."""

import numpy as np
import pytest
import torch

from s3router.data.contrastive_crops import (
    ContrastiveBatches,
    draw_distractors,
)
from s3router.data.crops import Version
from s3router.data.ragged import Ragged, write_ragged

LENGTHS = (40, 300, 17, 120, 1)


def shown_at_half_pace(clip, count, limit):
    return np.clip(np.arange(count) // 2, 0, limit - 1)


@pytest.fixture
def versions(tmp_path):
    """Features that say which version, clip and frame they are."""
    found = []
    for version, pace in enumerate((1, 2)):
        rows = [
            np.stack(
                [np.full(pace * n, version), np.full(pace * n, c)]
                + [np.arange(pace * n)],
                axis=1,
            )
            for c, n in enumerate(LENGTHS)
        ]
        write_ragged(tmp_path / f"{version}", rows, "float16")
        shown = shown_at_half_pace if version else None
        store = Ragged(tmp_path / f"{version}", "float16")
        found.append(Version(store, shown))
    return found


def batches_of(versions, **options):
    defaults = {"batches": 40, "batch_frames": 150, "crop_frames": 64}
    return ContrastiveBatches(
        versions,
        np.full(len(LENGTHS), 0.2),
        distractors=7,
        **{**defaults, **options},
    )


def test_targets_are_the_clean_frames_behind_what_is_hidden(versions):
    data = batches_of(versions)
    seen = set()
    for number in range(len(data)):
        batch = data[number]
        inputs = batch.features.flatten(0, 1)[batch.chosen].numpy()
        hidden = batch.hidden.flatten().nonzero()[:, 0]
        assert batch.chosen.equal(hidden)
        assert batch.targets.dtype == torch.float32
        for (version, clip, frame), target in zip(
            inputs.astype(int), batch.targets.numpy(), strict=True
        ):
            frame = frame // 2 if version else frame
            assert target.tolist() == [0, clip, frame]
            seen.add(int(version))
    assert seen == {0, 1}


def test_distractors_are_other_hidden_frames_of_the_same_crop(versions):
    data = batches_of(versions)
    for number in range(len(data)):
        batch = data[number]
        rows = batch.chosen // batch.hidden.shape[1]
        own = torch.arange(len(rows)).unsqueeze(1)
        drawn = batch.distractors
        assert drawn.shape == (len(rows), 7)
        alone = torch.bincount(rows)[rows] == 1
        assert (drawn[alone] == -1).all()
        drawn, own = drawn[~alone], own[~alone]
        assert (drawn != own).all() and (drawn >= 0).all()
        assert (rows[drawn] == rows[own]).all()


def test_distractors_are_drawn_evenly():
    rows = np.repeat([0, 1], [5, 3])
    drawn = draw_distractors(rows, 20000, np.random.default_rng(0))
    for own in range(8):
        others = [n for n in range(8) if rows[n] == rows[own] and n != own]
        found, count = np.unique(drawn[own], return_counts=True)
        assert found.tolist() == others
        np.testing.assert_allclose(count / 20000, 1 / len(others), atol=0.02)


def test_a_batch_depends_on_seed_epoch_and_number_only(versions):
    data = batches_of(versions)
    data.set_epoch(2)
    again = batches_of(versions)
    again.set_epoch(2)
    again[3]
    for first, second in zip(data[9], again[9], strict=True):
        assert first.equal(second)
    other = batches_of(versions, seed=1)
    other.set_epoch(2)
    assert not (
        other[9].features.shape == data[9].features.shape
        and other[9].features.equal(data[9].features)
    )


def test_moving_a_batch_leaves_its_lengths_on_the_cpu(versions):
    moved = batches_of(versions)[0].to("meta")
    for name, tensor in moved._asdict().items():
        assert tensor.is_meta == (name != "frames"), name
