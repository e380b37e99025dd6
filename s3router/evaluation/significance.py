"""Is one system better than another on the same utterances?

A paired bootstrap (Bisani and Ney, ICASSP 2004, section 4): both systems are
scored on the same draws of utterances, so that what makes an utterance hard
for both cancels. Counts of errors are kaldialign's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import kaldialign
import numpy as np

from s3router.errors import DataError
from s3router.evaluation.error_rates import REPLICATES, split_pairs
from s3router.evaluation.table_format import format_points


@dataclass(frozen=True)
class PairedDifference:
    """How far system b stands from system a.

    Arguments
    ---------
    difference : float
        Rate of b minus rate of a, a fraction: below 0, b is better.
    low : float
        Lower end of the 95% interval of the difference.
    high : float
        Upper end.
    better : float
        Share of the draws in which b makes fewer errors than a.
    utterances : int
        Utterances compared.
    groups : int
        Units that were drawn: speakers if given, else utterances.
    """

    difference: float
    low: float
    high: float
    better: float
    utterances: int
    groups: int

    @property
    def significant(self) -> bool:
        """True if the 95% interval does not hold 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return format_points(vars(self))


def paired_difference(
    refs: Sequence[str],
    hyps_a: Sequence[str],
    hyps_b: Sequence[str],
    unit: str = "char",
    *,
    spaceless: bool = False,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> PairedDifference:
    """Compare two systems on the same utterances.

    Arguments
    ---------
    refs : sequence of str
        What was said.
    hyps_a : sequence of str
        What system a recognised, in the same order.
    hyps_b : sequence of str
        What system b recognised.
    unit : str
        "char" or "word".
    spaceless : bool
        See `error_rates.split_units`.
    groups : sequence of str, optional
        The speaker of each utterance. Utterances of one speaker are alike,
        so whole speakers are drawn; without groups, single utterances.
    seed : int
        Of the bootstrap.
    replicates : int
        Bootstrap draws.

    Returns
    -------
    PairedDifference
        The difference of the rates with its 2.5% and 97.5% percentiles.

    Raises
    ------
    SettingError
        If the unit is unknown.
    DataError
        If the numbers of texts or groups differ, or the references hold no
        unit.

    Example
    -------
    >>> refs = ["one two three", "four five six"] * 10
    >>> a = ["one two", "four six"] * 10
    >>> paired_difference(refs, a, refs, "word").significant
    True
    """
    if groups is not None and len(groups) != len(refs):
        raise DataError(f"{len(refs)} references but {len(groups)} groups")
    ref_units, a_units = split_pairs(refs, hyps_a, unit, spaceless)
    _, b_units = split_pairs(refs, hyps_b, unit, spaceless)
    totals = np.array([len(units) for units in ref_units], dtype=np.int64)
    errors_a = _errors(ref_units, a_units)
    errors_b = _errors(ref_units, b_units)
    table = np.stack([errors_a, errors_b, totals], axis=1)
    if groups is not None:
        table = _sum_by_group(table, groups)
    drawn = _draw(table, seed, replicates)
    differences = (drawn[:, 1] - drawn[:, 0]) / drawn[:, 2]
    low, high = np.percentile(differences, [2.5, 97.5])
    return PairedDifference(
        difference=float((errors_b.sum() - errors_a.sum()) / totals.sum()),
        low=float(low),
        high=float(high),
        better=float((drawn[:, 1] < drawn[:, 0]).mean()),
        utterances=len(refs),
        groups=len(table),
    )


def _errors(refs: list[list[str]], hyps: list[list[str]]) -> np.ndarray:
    return np.array(
        [
            kaldialign.edit_distance(ref, hyp)["total"]
            for ref, hyp in zip(refs, hyps, strict=True)
        ],
        dtype=np.int64,
    )


def _sum_by_group(table: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    summed = np.zeros((len(names), table.shape[1]), dtype=table.dtype)
    np.add.at(summed, index, table)
    return summed


def _draw(table: np.ndarray, seed: int, replicates: int) -> np.ndarray:
    """Return sums (replicates, columns) over rows drawn with replacement."""
    generator = np.random.default_rng(seed)
    drawn = np.empty((replicates, table.shape[1]), dtype=np.int64)
    for row in range(replicates):
        chosen = generator.integers(len(table), size=len(table))
        drawn[row] = table[chosen].sum(axis=0)
    # A draw without any reference unit has no rate.
    return drawn[drawn[:, 2] > 0]
