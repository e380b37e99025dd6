"""Word and character error rates with a 95% interval.

The rate is jiwer's; the interval is kaldialign's bootstrap over utterances
(Bisani and Ney, ICASSP 2004). What is compared is text as it stands: cleaning
it is `s3router.data.text`'s business. Comparing two systems is
`significance.py`'s.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jiwer
import kaldialign

from s3router.errors import DataError, one_of

UNITS = ("char", "word")
REPLICATES = 10_000


@dataclass(frozen=True)
class ErrorRate:
    """An error rate over a set of utterances.

    Arguments
    ---------
    rate : float
        Errors per unit of the reference, a fraction: 0.25 is 25%. It can
        exceed 1, as insertions count.
    low : float, optional
        Lower end of the 95% interval, a fraction, at least 0; None if no
        interval was asked for.
    high : float, optional
        Upper end of the 95% interval.
    errors : int
        Substitutions, deletions and insertions together.
    total : int
        Units (characters or words) in the references.
    utterances : int
        Utterances compared.
    unit : str
        "char" or "word".
    substitutions : int
        Units replaced by another.
    deletions : int
        Units of the reference that are missing.
    insertions : int
        Units that the reference does not have.

    Example
    -------
    >>> print(error_rate(["a b c d"] * 4, ["a b x d"] * 4, unit="word"))
    25.0 [25.0, 25.0]
    """

    rate: float
    low: float | None
    high: float | None
    errors: int
    total: int
    utterances: int
    unit: str
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "ErrorRate":
        """Return the rate that a result JSON holds.

        Arguments
        ---------
        values : mapping
            As `dataclasses.asdict` gives it; keys of later versions are
            passed over.

        Returns
        -------
        ErrorRate
            The same rate.
        """
        known = cls.__dataclass_fields__
        return cls(**{k: v for k, v in values.items() if k in known})

    def __str__(self) -> str:
        text = f"{100 * self.rate:.1f}"
        if self.low is None or self.high is None:
            return text
        return f"{text} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def split_units(text: str, unit: str, spaceless: bool = False) -> list[str]:
    """Cut a text into what is counted.

    Arguments
    ---------
    text : str
        A transcript.
    unit : str
        "word": what stands between spaces. "char": Unicode characters (code
        points) with one space between words.
    spaceless : bool
        The language is written without spaces (Chinese, Japanese, Thai):
        spaces are removed before characters are counted.

    Returns
    -------
    list of str
        The units, in order.

    Raises
    ------
    SettingError
        If the unit is unknown.

    Example
    -------
    >>> split_units(" a  bc ", "char")
    ['a', ' ', 'b', 'c']
    >>> split_units("你 好", "char", spaceless=True)
    ['你', '好']
    """
    one_of(unit, UNITS, "unit")
    words = text.split()
    if unit == "word":
        return words
    return list(("" if spaceless else " ").join(words))


def split_pairs(
    refs: Sequence[str],
    hyps: Sequence[str],
    unit: str,
    spaceless: bool = False,
) -> tuple[list[list[str]], list[list[str]]]:
    """Cut references and hypotheses into units, after checking them.

    Arguments
    ---------
    refs : sequence of str
        What was said.
    hyps : sequence of str
        What was recognised, in the same order. Empty texts are fine.
    unit : str
        "char" or "word".
    spaceless : bool
        See `split_units`.

    Returns
    -------
    tuple
        Units of the references and of the hypotheses, one list each.

    Raises
    ------
    DataError
        If the numbers of texts differ, or the references hold no unit.
    """
    if len(refs) != len(hyps):
        raise DataError(
            f"{len(refs)} references but {len(hyps)} hypotheses: "
            f"every utterance needs one of each"
        )
    ref_units = [split_units(text, unit, spaceless) for text in refs]
    hyp_units = [split_units(text, unit, spaceless) for text in hyps]
    if not any(ref_units):
        raise DataError(
            f"nothing to score: {len(refs)} references hold no {unit} at all"
        )
    return ref_units, hyp_units


def error_rate(
    refs: Sequence[str],
    hyps: Sequence[str],
    unit: str = "char",
    *,
    spaceless: bool = False,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> ErrorRate:
    """Return the error rate of a set of utterances.

    The interval is the bootstrap mean plus and minus 1.96 standard errors
    over `replicates` draws of utterances with replacement. It tells how far
    the rate may move with another test set of this size, not with another
    training seed, and takes utterances to be independent.

    Arguments
    ---------
    refs : sequence of str
        What was said. An empty reference is allowed: what is recognised
        there counts as insertions.
    hyps : sequence of str
        What was recognised, in the same order.
    unit : str
        "char" (CER) or "word" (WER).
    spaceless : bool
        See `split_units`; without effect on words.
    seed : int
        Of the bootstrap: the same seed gives the same interval.
    replicates : int
        Bootstrap draws; 0 leaves the interval out, which is quicker.

    Returns
    -------
    ErrorRate
        The rate, its interval and the counts behind it.

    Raises
    ------
    SettingError
        If the unit is unknown.
    DataError
        If the numbers of texts differ, or the references hold no unit.

    Example
    -------
    >>> error_rate(["你 好"], ["你好"], "char", spaceless=True).errors
    0
    >>> error_rate(["one two"], ["one"], "word", replicates=0).rate
    0.5
    """
    ref_units, hyp_units = split_pairs(refs, hyps, unit, spaceless)
    if unit == "word":
        output = jiwer.process_words(*_joined(ref_units, hyp_units, " "))
    else:
        output = jiwer.process_characters(*_joined(ref_units, hyp_units, ""))
    counts = (output.substitutions, output.deletions, output.insertions)
    total = sum(map(len, ref_units))
    low, high = _interval(ref_units, hyp_units, seed, replicates)
    return ErrorRate(
        rate=sum(counts) / total,
        low=low,
        high=high,
        errors=sum(counts),
        total=total,
        utterances=len(refs),
        unit=unit,
        substitutions=counts[0],
        deletions=counts[1],
        insertions=counts[2],
    )


def _joined(
    refs: list[list[str]], hyps: list[list[str]], between: str
) -> tuple[list[str], list[str]]:
    return (
        [between.join(units) for units in refs],
        [between.join(units) for units in hyps],
    )


def _interval(
    refs: list[list[str]], hyps: list[list[str]], seed: int, replicates: int
) -> tuple[float | None, float | None]:
    if replicates == 0:
        return None, None
    answer = kaldialign.bootstrap_wer_ci(
        refs, hyps, replications=replicates, seed=seed
    )
    low, high = answer["ci95min"], answer["ci95max"]
    # A draw of empty references only has no rate: with very few utterances,
    # some of them silent, the bootstrap then has no finite answer.
    if not (math.isfinite(low) and math.isfinite(high)):
        return None, None
    return max(0.0, low), high
