"""Diagonal Gaussian mixtures, one for each label, estimated from labels.

A frame belongs to the likeliest component of its label (as in Viterbi
training). Components split in two where a label has frames enough.
"""

import numpy as np

#: Frames for which a variance counts as much as that of all labels together.
_PRIOR = 20.0
_FLOOR = 0.05
_PER_COMPONENT = 60


class Mixtures:
    """One mixture of diagonal Gaussians for each label.

    Arguments
    ---------
    frames : numpy.ndarray
        (frames, width) float32.
    labels : numpy.ndarray
        (frames,) 0 to `count` - 1; a label without frames gets the mean and
        variance of all.
    count : int
        Labels.
    """

    def __init__(
        self, frames: np.ndarray, labels: np.ndarray, count: int
    ) -> None:
        self.count = count
        self.owners = np.arange(count)
        self.means = np.tile(frames.mean(0), (count, 1))
        self._estimate(frames, labels)

    def fit(self, frames: np.ndarray, labels: np.ndarray) -> None:
        """Estimate anew from labels that changed.

        Arguments
        ---------
        frames : numpy.ndarray
            (frames, width) float32.
        labels : numpy.ndarray
            (frames,) labels.
        """
        self._estimate(frames, self._nearest(frames, labels))

    def split(self) -> None:
        """Split each component with frames enough in two."""
        wide = np.flatnonzero(self.sizes >= 2 * _PER_COMPONENT)
        shift = 0.2 * np.sqrt(self.variances[wide])
        shifted = self.means[wide] + shift
        self.means[wide] -= shift
        self.sizes[wide] /= 2
        self.means = np.concatenate([self.means, shifted])
        for name in ("variances", "sizes", "owners"):
            values = getattr(self, name)
            setattr(self, name, np.concatenate([values, values[wide]]))

    def scores(self, frames: np.ndarray) -> np.ndarray:
        """Return the log likelihood of each frame for each label.

        Arguments
        ---------
        frames : numpy.ndarray
            (frames, width) float32.

        Returns
        -------
        numpy.ndarray
            (frames, labels) float32.
        """
        components = self._components(frames)
        out = np.empty((len(frames), self.count), np.float32)
        for label in range(self.count):
            own = components[:, self.owners == label]
            out[:, label] = np.logaddexp.reduce(own, axis=1)
        return out

    def _components(self, frames: np.ndarray) -> np.ndarray:
        """Return (frames, components) log of weight and density."""
        totals = np.bincount(self.owners, self.sizes, self.count)
        shares = self.sizes / np.maximum(totals[self.owners], 1e-9)
        precision = 1.0 / self.variances
        constant = (
            np.log(np.maximum(shares, 1e-9))
            - 0.5 * np.log(2 * np.pi * self.variances).sum(1)
            - 0.5 * (self.means**2 * precision).sum(1)
        )
        linear = (self.means * precision).T.astype(np.float32)
        square = (-0.5 * precision).T.astype(np.float32)
        return (
            frames @ linear
            + np.square(frames) @ square
            + constant.astype(np.float32)
        )

    def _nearest(self, frames: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the likeliest component of each frame's label."""
        components = self._components(frames)
        nearest = np.empty(len(frames), np.int64)
        for label in range(self.count):
            own = np.flatnonzero(self.owners == label)
            rows = np.flatnonzero(labels == label)
            nearest[rows] = own[components[np.ix_(rows, own)].argmax(1)]
        return nearest

    def _estimate(self, frames: np.ndarray, components: np.ndarray) -> None:
        count = len(self.owners)
        self.sizes = np.bincount(components, minlength=count).astype(float)
        heard = self.sizes > 0
        order = np.argsort(components, kind="stable")
        starts = np.searchsorted(components[order], np.flatnonzero(heard))
        sums = np.zeros((count, frames.shape[1]))
        squares = np.zeros_like(sums)
        ordered = frames[order].astype(np.float64)
        sums[heard] = np.add.reduceat(ordered, starts)
        squares[heard] = np.add.reduceat(np.square(ordered), starts)
        size = np.maximum(self.sizes, 1)[:, None]
        self.means = np.where(heard[:, None], sums / size, self.means)
        scatter = np.maximum(squares - sums**2 / size, 0.0)
        shared = scatter.sum(0) / max(1.0, len(frames) - heard.sum())
        shared = np.maximum(shared, 1e-6)
        self.variances = (scatter + _PRIOR * shared) / (
            self.sizes[:, None] + _PRIOR
        )
        floor = _FLOOR * shared
        self.variances = np.maximum(self.variances, floor)
