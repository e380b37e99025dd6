"""Directions on a toy whose discriminant is known, and against sklearn."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from s3router.errors import DataError
from s3router.models.phone_directions import fit_phone_directions
from s3router.models.units import assign_units, fit_units

PHONES = np.array(["a", "i", "u", "s"])


def toy(seed=0, talkers=30, count=2000, width=6):
    """Phones differ in axis 0 and 1 a little, talkers in axis 2 a lot."""
    generator = np.random.default_rng(seed)
    which = generator.integers(len(PHONES), size=count)
    means = np.array([[2, 0], [-2, 0], [0, 2], [0, -2]], dtype=float)
    frames = generator.standard_normal((count, width)) * 0.5
    frames[:, :2] += means[which]
    talker = generator.standard_normal(count)
    frames[:, 2] += talkers * talker
    # Phones lie along nothing else; mixed, so that no axis is special.
    turn, _ = np.linalg.qr(generator.standard_normal((width, width)))
    return (frames @ turn).astype("f4"), PHONES[which], turn, talker


def test_the_directions_are_those_in_which_phones_differ():
    frames, phones, turn, talker = toy()
    found = fit_phone_directions(frames, phones, 2)
    assert found.matrix.shape == (6, 2)
    assert found.mean.dtype == found.matrix.dtype == np.float32
    # In the unmixed space: axes 0 and 1, nothing of the talkers' axis 2.
    unmixed = turn @ found.matrix
    share = np.square(unmixed[:2]).sum() / np.square(unmixed).sum()
    assert share > 0.99
    projected = found(frames)
    assert np.abs(np.corrcoef(projected.T, talker)[-1, :-1]).max() < 0.1


def test_within_a_phone_the_variance_is_one():
    frames, phones, _, _ = toy(talkers=3)
    projected = fit_phone_directions(frames, phones, 2)(frames)
    for phone in PHONES:
        within = projected[phones == phone].std(0)
        np.testing.assert_allclose(within, 1.0, atol=0.15)
    np.testing.assert_allclose(projected.mean(0), 0.0, atol=1e-3)


def test_units_found_there_follow_the_phone_not_the_talker():
    frames, phones, _, _ = toy()
    project = fit_phone_directions(*toy(seed=0)[:2], 2)

    def purity(values):
        units = assign_units(values, fit_units(values, 4, seed=0))
        table = np.zeros((4, 4))
        np.add.at(table, (units, np.unique(phones, return_inverse=True)[1]), 1)
        return table.max(1).sum() / len(phones)

    assert purity(project(frames)) > 0.95
    assert purity(frames) < 0.6


def test_they_are_those_of_sklearn():
    frames, phones, _, _ = toy(seed=3)
    found = fit_phone_directions(frames, phones, 3)
    model = LinearDiscriminantAnalysis(
        solver="eigen", shrinkage=0.01, n_components=3
    )
    expected = model.fit(frames.astype("f8"), phones).transform(frames)
    ours = found(frames)
    difference = ours - expected
    # Up to where zero is; distances are what k-means sees.
    np.testing.assert_allclose(difference.std(0), 0.0, atol=1e-2)


def test_no_more_directions_than_phones_or_width_allow():
    frames, phones, _, _ = toy()
    assert fit_phone_directions(frames, phones, 48).matrix.shape == (6, 3)
    narrow = frames[:, :2]
    assert fit_phone_directions(narrow, phones, 48).matrix.shape == (2, 2)


def test_one_phone_is_refused():
    with pytest.raises(DataError, match="two phones or more, here are 1"):
        fit_phone_directions(np.zeros((4, 2)), np.array(["a"] * 4), 1)
