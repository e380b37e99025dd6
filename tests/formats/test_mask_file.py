"""Masks there and back, their size, and every kind of damage."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from s3router.errors import FormatError, NotFoundError, SettingError
from s3router.formats.mask_file import load_masks, save_masks


def masks():
    generator = np.random.default_rng(0)
    return {
        name: generator.random(shape) > 0.3
        for name, shape in (
            ("encoder.layers.0.fc1", (24, 16)),
            ("encoder.layers.0.fc2", (5, 7)),
            ("one", (1, 1)),
            ("none", (0, 3)),
            ("flat", (13,)),
        )
    }


def test_there_and_back(tmp_path):
    path, made = tmp_path / "mask.safetensors", masks()
    save_masks(path, made)
    loaded = load_masks(path)
    assert loaded.keys() == made.keys()
    for name, mask in made.items():
        assert loaded[name].dtype == bool
        assert np.array_equal(loaded[name], mask)
        assert loaded[name].shape == mask.shape


def test_no_masks_at_all(tmp_path):
    save_masks(tmp_path / "m", {})
    assert load_masks(tmp_path / "m") == {}


def test_one_bit_a_weight_lowest_first(tmp_path):
    path = tmp_path / "m"
    mask = np.zeros((2, 8), bool)
    mask[0, 0] = mask[1, 1] = mask[1, 7] = True
    save_masks(path, {"a": mask})
    assert load_file(path)["a"].tolist() == [1, 2 + 128]
    save_masks(path, {"a": np.ones((768, 3072), bool)})
    assert path.stat().st_size < 768 * 3072 // 8 + 1000


def test_any_memory_layout(tmp_path):
    mask = np.random.default_rng(1).random((6, 10)) > 0.5
    save_masks(tmp_path / "m", {"a": mask.T, "b": mask[::2, 1::3]})
    loaded = load_masks(tmp_path / "m")
    assert np.array_equal(loaded["a"], mask.T)
    assert np.array_equal(loaded["b"], mask[::2, 1::3])


def test_equal_masks_give_equal_files(tmp_path):
    for name in ("a", "b"):
        save_masks(tmp_path / name, dict(sorted(masks().items())))
    save_masks(tmp_path / "c", dict(reversed(masks().items())))
    assert len({(tmp_path / n).read_bytes() for n in "abc"}) == 1


def test_only_bool(tmp_path):
    with pytest.raises(SettingError, match="'a' is float32, not bool"):
        save_masks(tmp_path / "m", {"a": np.ones(3, np.float32)})
    assert not (tmp_path / "m").exists()


def test_truncation_anywhere_is_noticed(tmp_path):
    path = tmp_path / "mask.safetensors"
    save_masks(path, masks())
    data = path.read_bytes()
    for size in {0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1}:
        path.write_bytes(data[:size])
        with pytest.raises(FormatError, match=r"mask\.safetensors"):
            load_masks(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(FormatError):
        load_masks(path)


def test_a_changed_byte_anywhere_is_noticed(tmp_path):
    path = tmp_path / "mask.safetensors"
    made = masks()
    save_masks(path, made)
    data = path.read_bytes()
    for position in range(0, len(data), 3):
        changed = bytearray(data)
        changed[position] ^= 0x11
        path.write_bytes(bytes(changed))
        try:
            loaded = load_masks(path)
        except FormatError as error:
            assert "mask.safetensors" in str(error)
        else:  # white space in the header: nothing that is read
            assert loaded.keys() == made.keys()
            assert all(np.array_equal(loaded[n], made[n]) for n in made)


def test_files_that_are_something_else(tmp_path):
    path = tmp_path / "m"
    save_file({"a": np.zeros(3, np.uint8)}, path)
    with pytest.raises(FormatError, match="not a mask file"):
        load_masks(path)
    save_file({"a": np.zeros(3, np.uint8)}, path, {"s3router": "{"})
    with pytest.raises(FormatError, match="not a mask file"):
        load_masks(path)
    header = {"format": "mask", "format_version": 99}
    save_file({}, path, {"s3router": json.dumps(header)})
    with pytest.raises(FormatError, match="version 99"):
        load_masks(path)
    path.write_text("not at all")
    with pytest.raises(FormatError, match="truncated or altered"):
        load_masks(path)
    with pytest.raises(NotFoundError, match="no such mask file"):
        load_masks(tmp_path / "none")
    with pytest.raises(NotFoundError, match="no such mask file"):
        load_masks(tmp_path)


@pytest.mark.parametrize("shape", [[2, 4], [-3, 4], "12", [3.0, 4], [999]])
def test_shapes_that_do_not_fit(tmp_path, shape):
    import hashlib

    path, bits = tmp_path / "m", np.zeros(2, np.uint8)
    digest = hashlib.sha256(json.dumps(["a", shape]).encode() + bits.tobytes())
    header = {
        "format": "mask",
        "format_version": 1,
        "shapes": {"a": shape},
        "sha256": digest.hexdigest(),
    }
    save_file({"a": bits}, path, {"s3router": json.dumps(header)})
    with pytest.raises(FormatError, match="do not fit"):
        load_masks(path)
