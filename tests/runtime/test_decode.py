"""Greedy CTC, against the definition of the collapse written out."""

from itertools import groupby

import numpy as np
import pytest

from s3router.runtime.decode import collapse, greedy_ctc, join_tokens

SYMBOLS = ["<blk>", "<unk>", "▁", "a", "b", "你", "▁the"]


def test_collapse_equals_the_definition():
    rng = np.random.default_rng(0)
    for _ in range(200):
        path = rng.integers(0, 4, rng.integers(0, 30))
        for blank in (0, 2):
            merged = [int(token) for token, _ in groupby(path)]
            expected = [token for token in merged if token != blank]
            assert collapse(path, blank) == expected


def test_repeats_across_a_blank_stay():
    assert collapse([3, 3, 0, 3, 0, 0, 4]) == [3, 3, 4]


def test_greedy_takes_the_best_of_each_frame():
    logits = np.full((4, 3), -1.0, np.float32)
    logits[[0, 1, 2, 3], [1, 1, 0, 2]] = 2.0
    assert greedy_ctc(logits) == [1, 2]
    assert greedy_ctc(logits, blank=1) == [0, 2]


def test_greedy_of_nothing_is_nothing():
    assert greedy_ctc(np.zeros((0, 5))) == []


def test_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"\(1, 2, 3\)"):
        greedy_ctc(np.zeros((1, 2, 3)))


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], ""),
        ([3, 4], "ab"),
        ([2, 3, 2, 2, 4, 2], "a b"),
        ([0, 3, 1, 4], "ab"),
        ([6, 6, 3], "the thea"),
        ([5, 5], "你你"),
    ],
)
def test_join_tokens(ids: list[int], text: str):
    assert join_tokens(ids, SYMBOLS) == text


def test_other_special_ids():
    assert join_tokens([0, 3, 4], ["x", "y", "z", "<blk>", "q"], [3]) == "xq"
