"""Masks in few bytes: every one comes back, and stays within its entropy."""

import numpy as np
import pytest

from s3router.errors import FormatError
from s3router.formats.mask_code import (
    entropy_bytes,
    longest,
    magnitude_mask,
    majority,
    read_mask,
    write_mask,
)

SIZES = (0, 1, 7, 8, 9, 254, 255, 256, 257, 511, 512, 513, 10_007)


def sent(streams):
    return [(stream.coding, stream.payload) for stream in streams]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("density", [0, 0.001, 0.1, 0.5, 0.95, 1])
def test_every_mask_comes_back(size, density):
    rng = np.random.default_rng(size)
    mask = rng.random(size) < density
    references = [None, mask, ~mask, np.ones(size, bool), np.zeros(size, bool)]
    for reference in [*references, rng.random(size) < 0.3]:
        streams = write_mask(mask, reference, bytes)
        assert len(streams) == (1 if reference is None else 2)
        for stream in streams:
            assert stream.raw == len(stream.payload)
            assert stream.raw <= longest(stream.coding, size)
        got = read_mask(sent(streams), size, reference)
        assert got.dtype == bool
        np.testing.assert_array_equal(got, mask)


@pytest.mark.parametrize("step", range(250, 262))
def test_gaps_around_a_byte(step):
    mask = np.zeros(3 * step + 1, bool)
    mask[::step] = True
    streams = write_mask(mask, None, bytes)
    assert streams[0].coding == "ones"
    # A byte for each, and one more where a step is longer than a byte.
    assert streams[0].raw == 4 + 3 * (step > 255)
    np.testing.assert_array_equal(
        read_mask(sent(streams), mask.size, None), mask
    )


def test_a_mask_against_itself_costs_nothing():
    mask = np.random.default_rng(0).random(999) < 0.4
    assert [s.raw for s in write_mask(mask, mask, bytes)] == [0, 0]


@pytest.mark.parametrize(
    ("streams", "words"),
    [
        ([("bits", b"\0")], "1 bytes are not 20 bits"),
        ([("ones", b"\x13\x00")], "reach 20 in 20"),
        ([("zeros", b"\xff")], "reach 254 in 20"),
        ([("ones", b""), ("ones", b"")], "2 streams"),
        ([], "0 streams"),
    ],
)
def test_streams_that_do_not_fit(streams, words):
    with pytest.raises(FormatError, match=words):
        read_mask(streams, 20, None)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_magnitude_is_a_stable_order(dtype):
    rng = np.random.default_rng(1)
    # In steps, so that many are equal; zeros of both signs among them.
    weight = np.round(rng.standard_normal(500) * 4).astype(dtype) / 4
    assert len(np.unique(np.abs(weight))) < 20
    order = np.argsort(-np.abs(weight), kind="stable")
    for kept in (0, 1, 3, 250, 499, 500):
        expected = np.zeros(500, bool)
        expected[order[:kept]] = True
        np.testing.assert_array_equal(magnitude_mask(weight, kept), expected)


def test_majority():
    masks = [np.array(list(row)) == "1" for row in ("1100", "1010", "1001")]
    assert majority(masks).tolist() == [True, False, False, False]
    # Of two, the first one breaks the tie.
    assert majority(masks[:2]).tolist() == masks[0].tolist()


def test_entropy():
    rng = np.random.default_rng(2)
    mask, reference = rng.random(5000) < 0.2, rng.random(5000) < 0.6

    def h(part):
        d = part.mean()
        return -(d * np.log2(d) + (1 - d) * np.log2(1 - d)) * part.size / 8

    assert entropy_bytes(mask) == pytest.approx(h(mask))
    assert entropy_bytes(mask, reference) == pytest.approx(
        h(mask[reference]) + h(mask[~reference])
    )
    assert entropy_bytes(mask, mask) == entropy_bytes(mask[:0]) == 0
