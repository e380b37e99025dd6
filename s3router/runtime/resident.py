"""One buffer of weights, masked in place: what mode "switch" holds in memory.

The weights as they were trained stay in their file, mapped. A language is a
bit for each of them; to change to it means to write the buffer anew from file
and bits, in blocks that stay in the cache of one core. No language leaves a
trace: what is written never depends on what was there before.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

#: Weights that are masked at once: with the unpacked masks, 512 kB.
BLOCK = 1 << 16
#: Of the buffer's arrays, in bytes: a cache line.
_ALIGNMENT = 64
_EIGHT = np.unpackbits(
    np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"
)
# (256, 8): for each byte of a mask, 32 ones for a weight that stays, or zeros.
_TABLE = np.where(_EIGHT, np.uint32(0xFFFFFFFF), np.uint32(0))


class ResidentWeights:
    """Weights in memory, of which each language keeps its own part.

    Arguments
    ---------
    path : str or path
        The file of all weights, float32, little endian.
    places : mapping of str to tuple
        Name of a weight to its offset in the file, in bytes, and its shape.

    Example
    -------
    >>> path = getfixture("tmp_path") / "weights"
    >>> _ = path.write_bytes(np.arange(1, 4, dtype="f4").tobytes())
    >>> weights = ResidentWeights(path, {"a": (0, (3,))})
    >>> weights.mask({"a": np.array([0b101], np.uint8)})
    ['a']
    >>> weights.arrays["a"]
    array([1., 0., 3.], dtype=float32)
    """

    def __init__(
        self,
        path: str | os.PathLike,
        places: Mapping[str, tuple[int, tuple[int, ...]]],
    ) -> None:
        file = map_file(path)
        self._stored = {
            name: file[offset : offset + 4 * int(np.prod(shape))].view("<u4")
            for name, (offset, shape) in places.items()
        }
        flat = _aligned([stored.size for stored in self._stored.values()])
        #: Name to the masked weight, float32; always the same memory.
        self.arrays = {
            name: array.reshape(places[name][1])
            for name, array in zip(self._stored, flat, strict=True)
        }
        self._bits: dict[str, np.ndarray | None] = {}

    def mask(self, bits: Mapping[str, np.ndarray]) -> list[str]:
        """Make the weights those of a language.

        Arguments
        ---------
        bits : mapping of str to numpy.ndarray
            Name of a weight to its mask, uint8, eight entries a byte, the
            lowest bit first. What is not named is kept whole.

        Returns
        -------
        list of str
            The weights that were written; those whose mask is the same as
            before are left alone.
        """
        wanted = {name: bits.get(name) for name in self._stored}
        changed = [
            name
            for name in wanted
            if name not in self._bits
            or not _same(self._bits[name], wanted[name])
        ]
        before, self._bits = self._bits, {}
        try:
            self._write(changed, wanted)
        except BaseException:
            # Interrupted half way: back to the language that others think is
            # here.
            self._write([name for name in changed if name in before], before)
            self._bits = before
            raise
        self._bits = wanted
        return changed

    def _write(
        self, names: list[str], bits: Mapping[str, np.ndarray | None]
    ) -> None:
        for name in names:
            out = self.arrays[name].reshape(-1).view(np.uint32)
            write_masked(out, self._stored[name], bits[name])


def write_masked(
    out: np.ndarray, stored: np.ndarray, bits: np.ndarray | None
) -> None:
    """Write a masked copy of weights: removed ones become +0.0.

    Arguments
    ---------
    out : numpy.ndarray
        (weights,) uint32, the bits of floats, written.
    stored : numpy.ndarray
        (weights,) uint32, the same without mask.
    bits : numpy.ndarray, optional
        (ceil(weights / 8),) uint8, the lowest bit first; None keeps all.
    """
    if bits is None:
        np.copyto(out, stored)
        return
    unpacked = np.empty((min(BLOCK, out.size + 7) // 8, 8), np.uint32)
    for start in range(0, out.size, BLOCK):
        stop = min(start + BLOCK, out.size)
        packed = bits[start // 8 : -(-stop // 8)]
        rows = unpacked[: len(packed)]
        # No byte is out of range; but only so numpy writes without a detour.
        np.take(_TABLE, packed, axis=0, out=rows, mode="clip")
        keep = rows.reshape(-1)[: stop - start]
        np.bitwise_and(stored[start:stop], keep, out=out[start:stop])


def map_file(path: str | os.PathLike) -> np.ndarray:
    """Return the bytes of a file, uint8, mapped and read-only.

    Arguments
    ---------
    path : str or path
        Any file that is not empty.

    Returns
    -------
    numpy.ndarray
        (bytes,) uint8.
    """
    return np.asarray(np.memmap(Path(path), np.uint8, "r"))


def _aligned(sizes: list[int]) -> list[np.ndarray]:
    """Return arrays (size,) float32 in one piece of memory."""
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += -(-4 * size // _ALIGNMENT) * _ALIGNMENT
    memory = np.empty(end + _ALIGNMENT, np.uint8)
    memory = memory[-memory.ctypes.data % _ALIGNMENT :]
    return [
        memory[start : start + 4 * size].view(np.float32)
        for start, size in zip(starts, sizes, strict=True)
    ]


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Return whether two masks are equal; None is the mask that keeps all."""
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)
