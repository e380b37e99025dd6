"""Masking in place, against numpy's own where."""

import numpy as np
import pytest

from s3router.runtime import resident
from s3router.runtime.resident import BLOCK, ResidentWeights

SHAPES = {
    "one": (1, 1),
    "odd": (3, 5),
    "block": (8, BLOCK // 8),
    "blocks": (317, 2 * BLOCK // 317 + 5),
}


@pytest.fixture
def file(tmp_path):
    """Return a file of weights, their places, and the weights."""
    rng = np.random.default_rng(0)
    weights, places, content = {}, {}, b""
    for name, shape in SHAPES.items():
        weights[name] = rng.standard_normal(shape).astype("f4")
        # Off the grid of four, as no file of ours is.
        content += bytes(3)
        places[name] = (len(content), shape)
        content += weights[name].tobytes()
    (tmp_path / "weights").write_bytes(content)
    return tmp_path / "weights", places, weights


def masks_of(seed, density=0.5):
    rng = np.random.default_rng(seed)
    return {n: rng.random(s) < density for n, s in SHAPES.items()}


def bits_of(masks):
    return {n: np.packbits(m, bitorder="little") for n, m in masks.items()}


def expect(arrays, weights, masks):
    for name, weight in weights.items():
        mask = masks.get(name, True)
        # Bytes: a removed negative weight is +0.0, as in mode fold.
        expected = np.where(mask, weight, np.float32(0))
        assert arrays[name].tobytes() == expected.tobytes(), name


def test_each_language_is_its_own_whatever_came_before(file):
    path, places, weights = file
    held = ResidentWeights(path, places)
    memory = {n: a.ctypes.data for n, a in held.arrays.items()}
    partly = {"odd": masks_of(3)["odd"]}
    for masks in (masks_of(1), masks_of(2, 0.1), {}, partly, masks_of(1)):
        held.mask(bits_of(masks))
        expect(held.arrays, weights, masks)
    assert memory == {n: a.ctypes.data for n, a in held.arrays.items()}
    assert all(address % 64 == 0 for address in memory.values())


def test_what_is_not_finite_can_be_removed(tmp_path):
    (tmp_path / "w").write_bytes(np.array([np.nan, -np.inf, 2], "f4").tobytes())
    held = ResidentWeights(tmp_path / "w", {"w": (0, (3,))})
    held.mask({"w": np.array([0b100], np.uint8)})
    assert held.arrays["w"].tolist() == [0, 0, 2]


def test_equal_masks_are_not_written_again(file):
    path, places, _ = file
    held = ResidentWeights(path, places)
    masks = masks_of(1)
    assert held.mask(bits_of(masks)) == list(SHAPES)
    held.arrays["odd"][0, 0] = 7
    masks["one"] = ~masks["one"]
    del masks["block"]
    assert held.mask(bits_of(masks)) == ["one", "block"]
    assert held.arrays["odd"][0, 0] == 7


def test_interrupted_it_goes_back(file, monkeypatch):
    path, places, weights = file
    held = ResidentWeights(path, places)
    before, after = masks_of(1), masks_of(2)
    held.mask(bits_of(before))
    real, calls = resident.write_masked, []

    def interrupted(*arguments):
        calls.append(1)
        real(*arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(resident, "write_masked", interrupted)
    with pytest.raises(KeyboardInterrupt):
        held.mask(bits_of(after))
    expect(held.arrays, weights, before)
    held.mask(bits_of(after))
    expect(held.arrays, weights, after)
