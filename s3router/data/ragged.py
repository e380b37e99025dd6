"""Arrays of unequal length in one memory-mapped file.

Holds what pre-training reads at random again and again: samples, features of
the frozen front end, units. Knows nothing of speech.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from s3router.errors import DataError, FormatError, NotFoundError
from s3router.formats.files import atomic_file


def write_ragged(
    path: str | os.PathLike, arrays: Iterable[np.ndarray], dtype: str
) -> None:
    """Write arrays one behind the other, whole or not at all.

    Arguments
    ---------
    path : str or path
        The file; raw little-endian values. Beside it, `<path>.index.npy` gets
        the bounds and is written last, so that its presence means "complete".
    arrays : iterable of numpy.ndarray
        (length, ...) each; all dimensions but the first are equal.
    dtype : str
        What to store, as "float16".

    Raises
    ------
    DataError
        If there are no arrays or their widths differ.
    """
    path = Path(path)
    lengths: list[int] = []
    width: tuple[int, ...] | None = None
    # An index whose values were removed must not vouch for new ones.
    _index(path).unlink(missing_ok=True)
    with atomic_file(path) as temporary:
        with temporary.open("wb") as file:
            for array in arrays:
                if width not in (None, array.shape[1:]):
                    raise DataError(
                        f"{path}: array {len(lengths)} has the width "
                        f"{array.shape[1:]}, the first one {width}"
                    )
                width = array.shape[1:]
                lengths.append(len(array))
                file.write(np.ascontiguousarray(array, dtype).tobytes())
    if width is None:
        raise DataError(f"{path}: there is nothing to write")
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    with atomic_file(_index(path)) as temporary:
        with temporary.open("wb") as file:
            index = [*(width or ()), *bounds, len(width or ())]
            np.save(file, np.array(index, dtype=np.int64))


def _index(path: Path) -> Path:
    return path.with_name(path.name + ".index.npy")


class Ragged:
    """Reads what `write_ragged` wrote; items are views of the file.

    Arguments
    ---------
    path : str or path
        The file.
    dtype : str
        As written.

    Raises
    ------
    NotFoundError
        If the file or its index is missing.
    FormatError
        If the file is shorter or longer than its index says.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.f16"
    >>> write_ragged(path, [np.ones((2, 3)), np.zeros((1, 3))], "float16")
    >>> ragged = Ragged(path, "float16")
    >>> len(ragged), ragged[0].shape, ragged.lengths.tolist()
    (2, (2, 3), [2, 1])
    """

    def __init__(self, path: str | os.PathLike, dtype: str) -> None:
        path = Path(path)
        if not self.exists(path):
            raise NotFoundError(f"no such file, or not complete: {path}")
        index = np.load(_index(path), allow_pickle=False)
        dimensions = int(index[-1])
        width = tuple(int(n) for n in index[:dimensions])
        self.bounds = index[dimensions:-1]
        values = np.memmap(path, dtype=dtype, mode="r")
        if values.size != self.bounds[-1] * int(np.prod(width)):
            raise FormatError(
                f"{path} does not have the length of its index: remove both "
                "and run again"
            )
        self._values = values.reshape(-1, *width)
        self._source = (path, dtype)

    def __reduce__(self) -> tuple[type["Ragged"], tuple[Path, str]]:
        # Another process opens the file; it is not sent all the values.
        return type(self), self._source

    @staticmethod
    def exists(path: str | os.PathLike) -> bool:
        """Tell whether a complete file of this kind is there."""
        return Path(path).is_file() and _index(Path(path)).is_file()

    @property
    def lengths(self) -> np.ndarray:
        """Length of each item, int64."""
        return np.diff(self.bounds)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._values[self.bounds[index] : self.bounds[index + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[index] for index in range(len(self)))
