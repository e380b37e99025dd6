"""Turn scores into masks on the CPU, in numpy, in place.

The rule (S3-Router, section 3; `s3router.masks.select` states it in full):
keep the entries with the largest |score|, an exact number of them, and among
equal ones remove the first. Scores are compared by the bits of |score|: for
float32 these order as the numbers do, and a partition of unsigned integers
takes half the time of one of floats, which has to look for NaN. No sort.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from s3router.errors import VerificationError

_SIGN = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)
#: Entries handled at once: what fits into the second-level cache, so that
#: the passes after the partition do not go through memory four times.
CHUNK = 1 << 16
#: One in so many scores is looked at first when several matrices are ranked
#: together, to know about where the threshold lies.
STRIDE = 61


class Selected(NamedTuple):
    """What a selection did to one mask, in entries."""

    flipped: int
    removed: int


class Scratch:
    """Memory that selections reuse; one for each thread."""

    def __init__(self) -> None:
        self._bits = np.empty((2, 0), np.uint32)
        self.chunk = np.empty(CHUNK, np.uint32)
        self.keep = np.empty(CHUNK, np.bool_)

    def bits(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return two uint32 arrays of a size, with whatever is in them."""
        if self._bits.shape[1] < size:
            self._bits = np.empty((2, size), np.uint32)
        return self._bits[0, :size], self._bits[1, :size]

    def keys(self, size: int) -> np.ndarray:
        """Return a uint64 array in the memory of `bits`."""
        self.bits(size)
        return self._bits.reshape(-1).view(np.uint64)[:size]


def keep_largest(
    scores: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    removed: int,
    scratch: Scratch,
) -> list[Selected]:
    """Keep the entries with the largest |score| of one or several matrices.

    Arguments
    ---------
    scores : sequence of numpy.ndarray
        float32, each of one dimension and contiguous; ranked together.
    masks : sequence of numpy.ndarray
        bool, of the same sizes; overwritten.
    removed : int
        How many entries of all together become False, exactly.
    scratch : Scratch
        Reused memory.

    Returns
    -------
    list of Selected
        For each mask.

    Raises
    ------
    VerificationError
        If a score is NaN; masks are then unchanged.

    Example
    -------
    >>> mask = np.zeros(4, bool)
    >>> scores = np.array([1, -3, 2, 1], np.float32)
    >>> keep_largest([scores], [mask], 1, Scratch())
    [Selected(flipped=3, removed=1)]
    >>> mask
    array([False,  True,  True,  True])
    """
    if removed == 0:
        for each in scores:
            _refuse_nan(_maximum(each, scratch))
        return [_keep_all(mask) for mask in masks]
    if len(scores) == 1:
        bits, *found = _threshold_of_one(scores[0], removed, scratch)
        return [_write(bits, masks[0], *found, scratch)[0]]
    threshold, ties_kept = _threshold_of_many(scores, removed, scratch)
    done = []
    # From the end: of equal scores the first are removed, the last stay.
    for each, mask in zip(reversed(scores), reversed(masks), strict=True):
        selected, ties_kept = _write(each, mask, threshold, ties_kept, scratch)
        done.append(selected)
    return done[::-1]


def keep_n_of_m(
    scores: np.ndarray,
    mask: np.ndarray,
    n: int,
    m: int,
    scratch: Scratch,
) -> Selected:
    """Keep the n largest |score| in each group of m consecutive entries.

    Arguments
    ---------
    scores : numpy.ndarray
        float32, one dimension, contiguous, a multiple of m long.
    mask : numpy.ndarray
        bool, of the same size; overwritten.
    n, m : int
        Entries kept, entries in a group; m is at most 64.
    scratch : Scratch
        Reused memory.

    Returns
    -------
    Selected
        What changed.

    Raises
    ------
    VerificationError
        If a score is NaN; the mask is then unchanged.

    Example
    -------
    >>> scores = np.array([1, -3, 2, 1, 5, 5, 5, 5], np.float32)
    >>> mask = np.zeros(8, bool)
    >>> keep_n_of_m(scores, mask, 2, 4, Scratch()).removed
    4
    >>> mask.view(np.uint8)
    array([0, 1, 1, 0, 0, 0, 1, 1], dtype=uint8)
    """
    _refuse_nan(_maximum(scores, scratch))
    flipped = 0
    step = CHUNK // m * m
    for start in range(0, scores.size, step):
        bits = _bits(scores[start : start + step], scratch.chunk)
        # A row for each place in the group makes every comparison a long one.
        columns = np.ascontiguousarray(bits.reshape(-1, m).T)
        better = np.zeros(columns.shape, np.uint8)
        for i in range(m):
            for j in range(i + 1, m):
                later = columns[j] >= columns[i]
                better[i] += later
                better[j] += ~later
        keep = scratch.keep[: bits.size]
        np.less(better.T, n, out=keep.reshape(-1, m))
        flipped += _exchange(mask[start : start + step], keep)
    return Selected(flipped, scores.size // m * (m - n))


def _bits(scores: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write the bits of |score| into the start of `out` and return them."""
    out = out[: scores.size]
    return np.bitwise_and(scores.view(np.uint32), _SIGN, out=out)


def _maximum(scores: np.ndarray, scratch: Scratch) -> int:
    largest = 0
    for start in range(0, scores.size, CHUNK):
        bits = _bits(scores[start : start + CHUNK], scratch.chunk)
        largest = max(largest, int(bits.max()))
    return largest


def _refuse_nan(largest: int) -> None:
    if largest > _INFINITY:
        raise VerificationError(
            "a score is NaN, so no mask can be selected: training diverged; "
            "lower the learning rate of the scores"
        )


def _threshold_of_one(
    scores: np.ndarray, removed: int, scratch: Scratch
) -> tuple[np.ndarray, np.uint32, int]:
    """Return bits, the largest removed one, and how many equal ones stay."""
    # Reading the scores is the dearest part, so it is done once: one copy of
    # the bits is taken apart to find the threshold, the other is compared.
    bits, apart = scratch.bits(scores.size)
    largest = 0
    for start in range(0, bits.size, CHUNK):
        part = _bits(scores[start : start + CHUNK], bits[start:])
        apart[start : start + CHUNK] = part
        largest = max(largest, int(part.max()))
    _refuse_nan(largest)
    apart.partition(removed - 1)
    threshold, above = apart[removed - 1], apart[removed:]
    if above.size == 0 or above.min() > threshold:
        return bits, threshold, 0
    return bits, threshold, int(np.count_nonzero(above == threshold))


def _threshold_of_many(
    scores: Sequence[np.ndarray], removed: int, scratch: Scratch
) -> tuple[np.uint32, int]:
    """Do the same for several matrices, without a copy of all of them.

    A sample brackets the threshold; one pass counts what lies below and
    takes out what lies inside; the answer is exact whatever the sample was,
    because a bracket that misses is replaced by one that holds everything.
    """
    low, high = _bracket(scores, removed)
    below, inside = _split(scores, low, high, scratch)
    if not below < removed <= below + inside.size:
        low, high = np.uint32(0), np.uint32(0xFFFFFFFF)
        below, inside = _split(scores, low, high, scratch)
    rank = removed - below - 1
    inside.partition(rank)
    threshold, above = inside[rank], inside[rank + 1 :]
    return threshold, int(np.count_nonzero(above == threshold))


def _bracket(
    scores: Sequence[np.ndarray], removed: int
) -> tuple[np.uint32, np.uint32]:
    """Return two values that very likely enclose the one of this rank."""
    sample = np.concatenate([each[::STRIDE] for each in scores])
    sample = sample.view(np.uint32) & _SIGN
    share = removed / sum(each.size for each in scores)
    middle = share * sample.size
    # Six standard deviations of the rank in the sample.
    reach = 6 * (middle * (1 - share)) ** 0.5 + 2
    first = max(0, int(middle - reach))
    last = min(sample.size - 1, int(middle + reach))
    sample.partition([first, last])
    return sample[first], sample[last]


def _split(
    scores: Sequence[np.ndarray],
    low: np.uint32,
    high: np.uint32,
    scratch: Scratch,
) -> tuple[int, np.ndarray]:
    """Return how many lie below `low`, and those from `low` to `high`."""
    below, inside, largest = 0, [], 0
    for each in scores:
        for start in range(0, each.size, CHUNK):
            bits = _bits(each[start : start + CHUNK], scratch.chunk)
            keep = scratch.keep[: bits.size]
            below += bits.size - int(
                np.count_nonzero(np.greater_equal(bits, low, out=keep))
            )
            np.logical_and(keep, bits <= high, out=keep)
            inside.append(bits[keep])
            largest = max(largest, int(bits.max()))
    _refuse_nan(largest)
    return below, np.concatenate(inside)


def _write(
    scores: np.ndarray,
    mask: np.ndarray,
    threshold: np.uint32,
    ties_kept: int,
    scratch: Scratch,
) -> tuple[Selected, int]:
    """Write one mask, from its end; return how many ties are left to keep.

    `scores` may be the bits of |score| already.
    """
    flipped = kept = 0
    for start in reversed(range(0, scores.size, CHUNK)):
        bits = scores[start : start + CHUNK]
        if bits.dtype != np.uint32:
            bits = _bits(bits, scratch.chunk)
        keep = np.greater(bits, threshold, out=scratch.keep[: bits.size])
        if ties_kept:
            ties = np.flatnonzero(bits == threshold)[-ties_kept:]
            keep[ties] = True
            ties_kept -= ties.size
        kept += int(np.count_nonzero(keep))
        flipped += _exchange(mask[start : start + CHUNK], keep)
    return Selected(flipped, scores.size - kept), ties_kept


def _exchange(mask: np.ndarray, keep: np.ndarray) -> int:
    """Write `keep` into `mask` and return how many entries changed."""
    np.not_equal(mask, keep, out=mask)
    flipped = int(np.count_nonzero(mask))
    mask[:] = keep
    return flipped


def _keep_all(mask: np.ndarray) -> Selected:
    flipped = mask.size - int(np.count_nonzero(mask))
    mask[:] = True
    return Selected(flipped, 0)
