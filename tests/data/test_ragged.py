"""Ragged files: what comes back, and that half-written ones are refused."""

import numpy as np
import pytest

from s3router.data.ragged import Ragged, write_ragged
from s3router.errors import DataError, FormatError, NotFoundError


@pytest.mark.parametrize("shape", [(), (3,), (2, 4)])
def test_items_come_back(tmp_path, shape):
    generator = np.random.default_rng(0)
    arrays = [
        generator.standard_normal((n, *shape)).astype("f2") for n in (2, 5, 1)
    ]
    write_ragged(tmp_path / "a", arrays, "float16")
    ragged = Ragged(tmp_path / "a", "float16")
    assert len(ragged) == 3
    assert ragged.lengths.tolist() == [2, 5, 1]
    for array, read in zip(arrays, ragged, strict=True):
        np.testing.assert_array_equal(array, read)
    with pytest.raises(IndexError):
        ragged[3]


def test_a_failure_leaves_nothing(tmp_path):
    def broken():
        yield np.zeros(3)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_ragged(tmp_path / "a", broken(), "int16")
    assert not list(tmp_path.iterdir())
    assert not Ragged.exists(tmp_path / "a")
    with pytest.raises(NotFoundError):
        Ragged(tmp_path / "a", "int16")


def test_a_cut_file_is_refused(tmp_path):
    write_ragged(tmp_path / "a", [np.zeros(8)], "int16")
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(content[:-2])
    with pytest.raises(FormatError, match="length of its index"):
        Ragged(tmp_path / "a", "int16")


def test_widths_must_agree_and_something_must_be_there(tmp_path):
    with pytest.raises(DataError, match="width"):
        write_ragged(
            tmp_path / "a", [np.zeros((2, 3)), np.zeros((2, 4))], "int16"
        )
    with pytest.raises(DataError, match="nothing to write"):
        write_ragged(tmp_path / "a", [], "int16")
