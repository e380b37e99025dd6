"""Mixtures against scipy's densities and plain averages."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from s3router.models.gaussian_mixtures import Mixtures


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Return frames of two labels; the second has two far-off halves."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [400, 800])
    frames = generator.normal(size=(1200, 3)).astype(np.float32)
    frames[400:, 0] += np.repeat([-6.0, 6.0], 400).astype(np.float32)
    return frames, labels


def test_means_and_variances_of_a_label(drawn: tuple) -> None:
    frames, labels = drawn
    mixtures = Mixtures(frames, labels, 2)
    for label in (0, 1):
        own = frames[labels == label]
        np.testing.assert_allclose(
            mixtures.means[label], own.mean(0), atol=1e-5
        )
    # A few frames' worth of what labels share goes in.
    own = frames[labels == 0]
    np.testing.assert_allclose(
        mixtures.variances[0, 1:], own.var(0)[1:], rtol=0.05
    )


def test_scores_are_log_densities(drawn: tuple) -> None:
    frames, labels = drawn
    mixtures = Mixtures(frames, labels, 2)
    mixtures.split()
    mixtures.fit(frames, labels)
    scores = mixtures.scores(frames)
    for label in (0, 1):
        own = mixtures.owners == label
        weights = mixtures.sizes[own] / mixtures.sizes[own].sum()
        parts = [
            np.log(weight) + norm.logpdf(frames, mean, np.sqrt(variance)).sum(1)
            for weight, mean, variance in zip(
                weights,
                mixtures.means[own],
                mixtures.variances[own],
                strict=True,
            )
        ]
        np.testing.assert_allclose(
            scores[:, label], logsumexp(parts, axis=0), rtol=1e-3, atol=1e-3
        )


def test_a_split_finds_both_halves(drawn: tuple) -> None:
    frames, labels = drawn
    mixtures = Mixtures(frames, labels, 2)
    before = mixtures.scores(frames)[np.arange(1200), labels].mean()
    mixtures.split()
    for _ in range(5):
        mixtures.fit(frames, labels)
    own = mixtures.owners == 1
    np.testing.assert_allclose(
        np.sort(mixtures.means[own][:, 0]), [-6, 6], atol=0.3
    )
    after = mixtures.scores(frames)[np.arange(1200), labels].mean()
    assert after > before + 0.5


def test_few_frames_are_not_split_and_none_are_no_error() -> None:
    generator = np.random.default_rng(0)
    frames = generator.normal(size=(200, 2)).astype(np.float32)
    labels = np.repeat([0, 1], [195, 5])
    mixtures = Mixtures(frames, labels, 3)
    mixtures.split()
    assert np.bincount(mixtures.owners).tolist() == [2, 1, 1]
    mixtures.fit(frames, labels)
    assert np.isfinite(mixtures.scores(frames)).all()
    np.testing.assert_allclose(mixtures.means[2], frames.mean(0), atol=1e-5)


def test_five_equal_frames_have_no_spike() -> None:
    frames = np.zeros((105, 2), np.float32)
    frames[5:] = np.random.default_rng(0).normal(size=(100, 2))
    mixtures = Mixtures(frames, np.repeat([0, 1], [5, 100]), 2)
    assert mixtures.variances[0].min() > 0.5
