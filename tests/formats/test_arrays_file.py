"""Arrays there and back, and what cannot be stored."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from s3router.errors import FormatError, NotFoundError, SettingError
from s3router.formats.arrays_file import load_arrays, save_arrays


def test_there_and_back_in_any_memory_layout(tmp_path):
    values = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    made = {
        "a": values,
        "turned": values.T,
        "cut": values[::2, 1:],
        "0": values[0, 0],
    }
    save_arrays(tmp_path / "a.safetensors", made)
    loaded = load_arrays(tmp_path / "a.safetensors")
    assert loaded.keys() == made.keys()
    for name, array in made.items():
        assert loaded[name].dtype == np.float32
        assert np.array_equal(loaded[name], array)
        assert loaded[name].shape == np.shape(array)


def test_none_at_all(tmp_path):
    save_arrays(tmp_path / "a", {})
    assert load_arrays(tmp_path / "a") == {}


@pytest.mark.parametrize(
    "array, text",
    [
        (np.ones(2), "float64"),
        (np.ones(2, np.float16), "float16"),
        (np.array([1, np.nan], np.float32), "NaN or infinity"),
        (np.array([1, np.inf], np.float32), "NaN or infinity"),
    ],
)
def test_what_cannot_be_stored(tmp_path, array, text):
    with pytest.raises(SettingError, match=f"'bad'.*{text}"):
        save_arrays(tmp_path / "a", {"bad": array})
    assert not list(tmp_path.iterdir())


def test_damage_and_other_files(tmp_path):
    path = tmp_path / "a.safetensors"
    save_arrays(path, {"a": np.ones(20, np.float32)})
    data = path.read_bytes()
    for size in (0, 7, 20, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(FormatError, match=r"a\.safetensors"):
            load_arrays(path)
    save_file({"a": np.ones(3)}, path)
    with pytest.raises(FormatError, match="'a' is float64"):
        load_arrays(path)
    with pytest.raises(NotFoundError):
        load_arrays(tmp_path / "none")
