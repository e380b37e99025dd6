"""Directions of a layer in which phones differ most.

Linear discriminant analysis: frames are projected so that phones lie far
apart and what varies within a phone (talker, room, pitch) has unit variance.
Units found there follow the phone more than the talker. Labels are needed for
the few directions only; the units themselves remain unsupervised.
"""

from typing import NamedTuple

import numpy as np

from s3router.errors import DataError


class PhoneDirections(NamedTuple):
    """A linear projection: `(frames - mean) @ matrix`.

    `mean` (width,), `matrix` (width, directions), float32.
    """

    mean: np.ndarray
    matrix: np.ndarray

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Return (frames, directions) float32."""
        return (frames - self.mean) @ self.matrix


def fit_phone_directions(
    frames: np.ndarray, phones: np.ndarray, count: int
) -> PhoneDirections:
    """Fit directions on frames whose phone is known.

    Arguments
    ---------
    frames : numpy.ndarray
        (frames, width).
    phones : numpy.ndarray
        (frames,) labels.
    count : int
        Directions wanted; fewer if there are not so many phones.

    Returns
    -------
    PhoneDirections
        In falling order of how well they tell phones apart.

    Raises
    ------
    DataError
        If there are fewer than two phones.
    """
    names = np.unique(phones)
    if len(names) < 2:
        raise DataError(
            f"directions of phones need two phones or more, here are "
            f"{len(names)}: give more labelled speech"
        )
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    count = min(count, len(names) - 1, frames.shape[1])
    model = LinearDiscriminantAnalysis(
        solver="eigen", shrinkage=0.01, n_components=count
    )
    model.fit(frames.astype(np.float64), phones)
    mean = frames.mean(0)
    return PhoneDirections(
        mean.astype(np.float32), model.scalings_[:, :count].astype(np.float32)
    )
