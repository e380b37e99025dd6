"""Error rates against a plain Levenshtein distance written out here."""

import random

import pytest

from s3router.errors import DataError, SettingError
from s3router.evaluation.error_rates import (
    ErrorRate,
    error_rate,
    split_units,
)


def levenshtein(reference, hypothesis):
    """Return the edit distance, by the textbook's table."""
    row = list(range(len(hypothesis) + 1))
    for i, wanted in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, given in enumerate(hypothesis, 1):
            diagonal, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, diagonal + (wanted != given)),
            )
    return row[-1]


def random_texts(seed, count=60):
    """Return references and hypotheses, some of them empty."""
    draw = random.Random(seed)
    words = ["a", "ab", "你好", "été", "ba", "l'eau", "c"]

    def text(reference):
        if not reference or draw.random() < 0.1:
            return " ".join(draw.choices(words, k=draw.randrange(6)))
        kept = [w for w in reference.split() if draw.random() < 0.8]
        return " ".join(kept + draw.choices(words, k=draw.randrange(2)))

    refs = [text("") for _ in range(count)]
    return refs, [text(ref) for ref in refs]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("unit", ["char", "word"])
@pytest.mark.parametrize("spaceless", [False, True])
def test_equals_the_textbook(seed, unit, spaceless):
    refs, hyps = random_texts(seed)
    pairs = [
        (split_units(ref, unit, spaceless), split_units(hyp, unit, spaceless))
        for ref, hyp in zip(refs, hyps, strict=True)
    ]
    errors = sum(levenshtein(ref, hyp) for ref, hyp in pairs)
    total = sum(len(ref) for ref, _ in pairs)
    result = error_rate(refs, hyps, unit, spaceless=spaceless, replicates=200)
    assert errors > 0
    assert (result.errors, result.total) == (errors, total)
    assert result.rate == errors / total
    parts = (result.substitutions, result.deletions, result.insertions)
    assert sum(parts) == errors
    assert result.utterances == len(refs)
    assert result.low < result.rate < result.high


def test_kinds_of_errors_are_told_apart():
    result = error_rate(["a b c d"], ["x b c d e"], "word")
    assert (result.substitutions, result.insertions) == (1, 1)
    assert error_rate(["a b c"], ["a"], "word").deletions == 2


def test_characters_count_single_spaces():
    assert error_rate(["ab  cd"], ["ab cd"], "char").errors == 0
    assert error_rate(["ab cd"], ["abcd"], "char").errors == 1
    assert error_rate(["ab cd"], ["abcd"], "char").total == 5


def test_spaces_do_not_count_where_a_language_has_none():
    result = error_rate(["你 好吗"], ["你好 吗"], "char", spaceless=True)
    assert (result.errors, result.total) == (0, 3)


def test_apostrophes_and_case_count_as_they_stand():
    assert error_rate(["l'eau"], ["leau"], "word").errors == 1
    assert error_rate(["Eau"], ["eau"], "char").errors == 1


def test_empty_texts():
    result = error_rate(["a b", "", "c"], ["", "x y", "c"], "word")
    assert (result.deletions, result.insertions, result.total) == (2, 2, 3)
    assert result.rate == pytest.approx(4 / 3)


@pytest.mark.parametrize("refs", [[], [""], ["", "  "]])
def test_nothing_to_score_is_an_error(refs):
    with pytest.raises(DataError, match="nothing to score"):
        error_rate(refs, ["x"] * len(refs), "char")


def test_unequal_numbers_are_an_error():
    with pytest.raises(DataError, match="2 references but 1 hyp"):
        error_rate(["a", "b"], ["a"], "char")


def test_unknown_unit_is_an_error():
    with pytest.raises(SettingError, match="did you mean 'word'"):
        error_rate(["a"], ["a"], "words")


def test_same_seed_same_interval():
    refs, hyps = random_texts(5)
    first = error_rate(refs, hyps, "char", seed=3)
    assert first == error_rate(refs, hyps, "char", seed=3)
    other = error_rate(refs, hyps, "char", seed=4)
    assert (first.low, first.high) != (other.low, other.high)
    assert first.rate == other.rate


def test_interval_has_the_width_of_theory():
    # One-word utterances: errors are coin tosses, so the standard error is
    # sqrt(p (1 - p) / n).
    n, wrong = 400, 100
    result = error_rate(["a"] * n, ["b"] * wrong + ["a"] * (n - wrong), "word")
    half = 1.96 * (0.25 * 0.75 / n) ** 0.5
    assert result.high - 0.25 == pytest.approx(half, rel=0.05)
    assert 0.25 - result.low == pytest.approx(half, rel=0.05)


def test_interval_covers_the_truth_about_95_times_of_100():
    draw = random.Random(0)
    hits = 0
    for seed in range(200):
        hyps = ["b" if draw.random() < 0.3 else "a" for _ in range(80)]
        result = error_rate(["a"] * 80, hyps, "word", seed=seed, replicates=500)
        hits += result.low <= 0.3 <= result.high
    assert 180 <= hits <= 198


def test_lower_end_is_not_below_zero():
    result = error_rate(["a"] * 20, ["b"] + ["a"] * 19, "word")
    assert result.low == 0.0


def test_interval_can_be_left_out():
    result = error_rate(["a b"], ["a"], "word", replicates=0)
    assert (result.low, result.high) == (None, None)
    assert str(result) == "50.0"


def test_no_interval_where_draws_may_be_silent():
    result = error_rate(["a", ""], ["b", "x"], "word")
    assert (result.low, result.high, result.rate) == (None, None, 2.0)


def test_text_form():
    rate = ErrorRate(0.1234, 0.1, 0.15, 1, 2, 3, "char")
    assert str(rate) == "12.3 [10.0, 15.0]"
