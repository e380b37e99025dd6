"""How a mask is written in few bytes: against another one, as gaps or bits.

A mask says for each of n weights whether it is kept. Against a reference that
both ends have, it is two streams of flags: which of those that the reference
keeps are removed, and which of those that it removes are kept after all. Each
stream has its own density, and takes what that density asks for; one stream
of differences would pay for the mean of both. Without a reference, the mask is
one stream.

A stream is written as its bits, or as the distances between the flags that are
rare: a byte b < 255 for "b others, then one", 255 for "255 others". zstd
packs either to within a few per cent of the entropy. Must not know files.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from s3router.errors import FormatError

#: As they are; gaps between the True; gaps between the False.
BITS, ONES, ZEROS = "bits", "ones", "zeros"
CODINGS = (BITS, ONES, ZEROS)
_FAR = 255


@dataclass(frozen=True)
class Stream:
    """Flags as they are sent.

    Arguments
    ---------
    coding : str
        Of `CODINGS`.
    raw : int
        Bytes before compression.
    payload : bytes
        Compressed; nothing for nothing.
    """

    coding: str
    raw: int
    payload: bytes


def write_mask(
    mask: np.ndarray,
    reference: np.ndarray | None,
    compress: Callable[[bytes], bytes],
) -> list[Stream]:
    """Write a mask against a reference.

    Arguments
    ---------
    mask : numpy.ndarray
        (n,) bool.
    reference : numpy.ndarray, optional
        (n,) bool. None: the mask stands for itself.
    compress : callable
        From bytes to bytes.

    Returns
    -------
    list of Stream
        One without reference, else two.
    """
    if reference is None:
        return [_write(mask, compress)]
    removed = _write(~mask[reference], compress)
    return [removed, _write(mask[~reference], compress)]


def read_mask(
    streams: Sequence[tuple[str, bytes]],
    size: int,
    reference: np.ndarray | None,
) -> np.ndarray:
    """Return the mask that `write_mask` wrote.

    Arguments
    ---------
    streams : sequence of tuple of str and bytes
        Coding and bytes, no longer compressed.
    size : int
        Number of weights.
    reference : numpy.ndarray, optional
        As at writing.

    Returns
    -------
    numpy.ndarray
        (size,) bool.

    Raises
    ------
    FormatError
        If a stream does not fit.

    Example
    -------
    >>> mask = np.array([True, False, True, True])
    >>> one, two = write_mask(mask, ~mask, bytes)
    >>> read_mask([(s.coding, s.payload) for s in (one, two)], 4, ~mask)
    array([ True, False,  True,  True])
    """
    if len(streams) != (1 if reference is None else 2):
        raise FormatError(f"a mask has {len(streams)} streams")
    if reference is None:
        return _read(*streams[0], size)
    mask = np.empty(size, np.bool_)
    ones = int(np.count_nonzero(reference))
    mask[reference] = ~_read(*streams[0], ones)
    mask[~reference] = _read(*streams[1], size - ones)
    return mask


def longest(coding: str, size: int) -> int:
    """Return the most bytes that a stream of so many flags can have."""
    return -(-size // 8) if coding == BITS else size


def _write(flags: np.ndarray, compress: Callable[[bytes], bytes]) -> Stream:
    """Return flags in the coding that takes fewest bytes."""
    ones = int(np.count_nonzero(flags))
    rare = ONES if 2 * ones <= flags.size else ZEROS
    gaps = _gaps(flags if rare == ONES else ~flags).tobytes()
    bits = np.packbits(flags, bitorder="little").tobytes()
    made = [
        Stream(coding, len(raw), compress(raw) if raw else b"")
        for coding, raw in ((rare, gaps), (BITS, bits))
    ]
    return min(made, key=lambda stream: len(stream.payload))


def _gaps(flags: np.ndarray) -> np.ndarray:
    places = np.flatnonzero(flags)
    far, near = np.divmod(np.diff(places, prepend=-1) - 1, _FAR)
    gaps = np.full(len(places) + int(far.sum()), _FAR, np.uint8)
    gaps[np.cumsum(far + 1) - 1] = near
    return gaps


def _read(coding: str, raw: bytes, size: int) -> np.ndarray:
    data = np.frombuffer(raw, np.uint8)
    if coding == BITS:
        if len(data) != longest(BITS, size):
            raise FormatError(f"{len(data)} bytes are not {size} bits")
        return np.unpackbits(data, count=size, bitorder="little").view(np.bool_)
    hits = data != _FAR
    ends = np.cumsum(data + hits.astype(np.int64)) - 1
    if len(ends) and ends[-1] >= size:
        raise FormatError(f"gaps reach {ends[-1]} in {size} weights")
    flags = np.zeros(size, np.bool_)
    flags[ends[hits]] = True
    return flags if coding == ONES else ~flags


def magnitude_mask(weight: np.ndarray, kept: int) -> np.ndarray:
    """Return the mask that keeps the largest weights of a matrix.

    The same everywhere, to the bit: it compares the bits of floats, and of
    equal ones keeps those that come first.

    Arguments
    ---------
    weight : numpy.ndarray
        (n,) float16 or float32.
    kept : int
        How many.

    Returns
    -------
    numpy.ndarray
        (n,) bool.

    Example
    -------
    >>> magnitude_mask(np.array([1, -3, 2, 2], np.float32), 2)
    array([False,  True,  True, False])
    """
    bits = 8 * weight.itemsize
    # Without the sign, floats are in the order of their bits as integers.
    size = weight.view(f"u{weight.itemsize}") & ((1 << (bits - 1)) - 1)
    removed = len(size) - kept
    if not kept:
        return np.zeros(len(size), np.bool_)
    least = np.partition(size, removed)[removed]
    mask = size > least
    missing = kept - int(np.count_nonzero(mask))
    mask[np.flatnonzero(size == least)[:missing]] = True
    return mask


def majority(masks: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mask that most masks agree with; the first one breaks ties.

    Arguments
    ---------
    masks : sequence of numpy.ndarray
        (n,) bool each.

    Returns
    -------
    numpy.ndarray
        (n,) bool.
    """
    votes = sum(mask.astype(np.int32) for mask in masks)
    tied = 2 * votes == len(masks)
    return np.where(tied, masks[0], 2 * votes > len(masks))


def entropy_bytes(
    mask: np.ndarray, reference: np.ndarray | None = None
) -> float:
    """Return what independent bits of a mask's density take at the least.

    Arguments
    ---------
    mask : numpy.ndarray
        (n,) bool.
    reference : numpy.ndarray, optional
        (n,) bool. With it, the densities are those where it keeps and where it
        removes.

    Returns
    -------
    float
        n H(d) / 8 bytes, or the sum of both parts.

    Example
    -------
    >>> entropy_bytes(np.arange(800) < 400)
    100.0
    """
    n, ones = mask.size, int(np.count_nonzero(mask))
    if reference is None:
        return _bound(n, ones)
    inside, both = (
        int(np.count_nonzero(reference)),
        int(np.count_nonzero(mask & reference)),
    )
    return _bound(inside, both) + _bound(n - inside, ones - both)


def _bound(n: int, ones: int) -> float:
    parts = [count for count in (ones, n - ones) if count]
    return sum(count * math.log2(n / count) for count in parts) / 8
