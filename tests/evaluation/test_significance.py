"""The paired bootstrap: what it finds, what it must not find."""

import random

import pytest

from s3router.errors import DataError
from s3router.evaluation.error_rates import error_rate
from s3router.evaluation.significance import paired_difference


def noisy(refs, share, seed):
    """Return the texts with about this share of the words replaced."""
    draw = random.Random(seed)
    return [
        " ".join("x" if draw.random() < share else w for w in ref.split())
        for ref in refs
    ]


REFS = ["one two three four five"] * 100


def test_difference_is_that_of_the_rates():
    a, b = noisy(REFS, 0.4, 1), noisy(REFS, 0.2, 2)
    found = paired_difference(REFS, a, b, "word")
    rates = [error_rate(REFS, hyps, "word").rate for hyps in (a, b)]
    assert found.difference == pytest.approx(rates[1] - rates[0])
    assert found.low < found.difference < found.high < 0
    assert found.significant
    assert found.better > 0.99


def test_swapping_the_systems_turns_the_sign():
    a, b = noisy(REFS, 0.4, 1), noisy(REFS, 0.2, 2)
    one = paired_difference(REFS, a, b, "word")
    two = paired_difference(REFS, b, a, "word")
    assert two.difference == -one.difference
    assert (two.low, two.high) == (-one.high, -one.low)
    assert two.better < 0.01


def test_equal_systems_do_not_differ():
    a = noisy(REFS, 0.3, 1)
    same = paired_difference(REFS, a, a, "word")
    assert (same.difference, same.low, same.high) == (0, 0, 0)
    assert same.better == 0 and not same.significant


def test_chance_is_rarely_called_a_difference():
    calls = sum(
        paired_difference(
            REFS,
            noisy(REFS, 0.3, 2 * seed),
            noisy(REFS, 0.3, 2 * seed + 1),
            "word",
            replicates=300,
        ).significant
        for seed in range(60)
    )
    assert calls <= 8


def test_pairing_sees_what_two_intervals_would_hide():
    # b mends one error in each of many utterances of very different rates.
    refs = ["a b c d e f g h"] * 40
    a = ["x b c d e f g h", "x x x x x x x x"] * 20
    b = ["a b c d e f g h", "a x x x x x x x"] * 20
    alone = [error_rate(refs, hyps, "word") for hyps in (a, b)]
    assert alone[0].low < alone[1].high
    assert paired_difference(refs, a, b, "word").significant


def test_speakers_make_the_interval_wider():
    # All utterances of a speaker go the same way: two speakers, no evidence.
    refs = ["a b"] * 40
    a = ["a x"] * 20 + ["a b"] * 20
    b = ["a b"] * 20 + ["a x"] * 10 + ["a b"] * 10
    single = paired_difference(refs, a, b, "word")
    speakers = ["ann"] * 20 + ["bob"] * 20
    grouped = paired_difference(refs, a, b, "word", groups=speakers)
    assert grouped.groups == 2 and single.groups == 40
    assert grouped.high - grouped.low > single.high - single.low
    assert grouped.difference == single.difference


def test_same_seed_same_answer():
    a, b = noisy(REFS, 0.4, 1), noisy(REFS, 0.3, 2)
    first = paired_difference(REFS, a, b, "word", seed=5, replicates=200)
    again = paired_difference(REFS, a, b, "word", seed=5, replicates=200)
    assert first == again


def test_text_form():
    a, b = noisy(REFS, 0.4, 1), noisy(REFS, 0.2, 2)
    text = str(paired_difference(REFS, a, b, "word"))
    assert text.startswith("-") and text.endswith("]")


def test_wrong_numbers_are_errors():
    with pytest.raises(DataError, match="1 groups"):
        paired_difference(["a", "b"], ["a", "b"], ["a", "b"], groups=["x"])
    with pytest.raises(DataError, match="hypotheses"):
        paired_difference(["a", "b"], ["a", "b"], ["a"])
