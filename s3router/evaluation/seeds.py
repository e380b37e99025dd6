"""One error rate out of several training seeds of the same setting.

The two parts of the variance add up (law of total variance). The test set is
the same for all seeds, so its part does not shrink with more seeds; the part
of the training does. That part is itself an estimate from few seeds, so the
sum is taken for one with the degrees of freedom of Welch (Biometrika, 1947)
and Satterthwaite, and intervals widen where seeds differ more than draws of
the test set do.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from scipy.special import stdtrit

from s3router.errors import DataError
from s3router.evaluation.error_rates import ErrorRate
from s3router.evaluation.significance import PairedDifference

#: The 97.5% quantile of the normal distribution.
NORMAL = 1.96


def pool_seeds(rates: Sequence[ErrorRate]) -> ErrorRate:
    """Return the mean rate over training seeds, with an interval for both.

    The interval is mean +- t sqrt(v + s^2 / n): v is the mean variance by
    the choice of test utterances (from each seed's own interval), s^2 the
    variance between the n seeds, and t the 97.5% quantile of Student's
    distribution with (n - 1) (1 + v n / s^2)^2 degrees of freedom, which is
    1.96 where seeds agree.

    Arguments
    ---------
    rates : sequence of ErrorRate
        One per seed, on the same test set.

    Returns
    -------
    ErrorRate
        The pooled rate; of a single seed, that seed's, unchanged. Counts are
        summed over the seeds, `utterances` is that of the test set.

    Raises
    ------
    DataError
        If the test sets differ.

    Example
    -------
    >>> one = ErrorRate(0.2, 0.1, 0.3, 20, 100, 10, "char")
    >>> two = ErrorRate(0.24, 0.14, 0.34, 24, 100, 10, "char")
    >>> print(pool_seeds([one, one, two]))
    21.3 [11.0, 31.7]
    """
    first = rates[0]
    if len(rates) == 1:
        return first
    sets = {(rate.unit, rate.utterances, rate.total) for rate in rates}
    if len(sets) > 1:
        raise DataError(
            f"seeds were tested on different sets "
            f"(unit, utterances, units): {sorted(sets)}"
        )
    mean = statistics.fmean(rate.rate for rate in rates)
    if any(rate.high is None for rate in rates):
        low = high = None
    else:
        # By the upper end: the lower one is cut off at 0.
        halves = [r.high - r.rate for r in rates]
        half = _half_width(halves, [r.rate for r in rates])
        low, high = max(0.0, mean - half), mean + half
    counts = ("errors", "total", "substitutions", "deletions", "insertions")
    sums = {name: sum(getattr(r, name) for r in rates) for name in counts}
    return replace(first, rate=mean, low=low, high=high, **sums)


def pool_differences(
    differences: Sequence[PairedDifference],
) -> PairedDifference:
    """Return the mean difference over training seeds, as `pool_seeds` does.

    Arguments
    ---------
    differences : sequence of PairedDifference
        One for each seed, on the same test set.

    Returns
    -------
    PairedDifference
        With the interval of both variances; `better` is the mean.

    Example
    -------
    >>> one = PairedDifference(-0.1, -0.2, 0.0, 0.9, 10, 10)
    >>> pooled = pool_differences([one, one])
    >>> pooled.difference, round(pooled.high, 3)
    (-0.1, 0.0)
    """
    values = [each.difference for each in differences]
    mean = statistics.fmean(values)
    half = _half_width(
        [(each.high - each.low) / 2 for each in differences], values
    )
    return replace(
        differences[0],
        difference=mean,
        low=mean - half,
        high=mean + half,
        better=statistics.fmean(each.better for each in differences),
    )


def _half_width(halves: Sequence[float], values: Sequence[float]) -> float:
    """Return half of the 95% interval of the mean of values.

    Arguments
    ---------
    halves : sequence of float
        Half of each value's own interval, by the draw of the test set.
    values : sequence of float
        One for each seed.
    """
    sampling = statistics.fmean((half / NORMAL) ** 2 for half in halves)
    if len(values) == 1 or not (spread := statistics.variance(values)):
        return NORMAL * math.sqrt(sampling)
    training = spread / len(values)
    variance = sampling + training
    freedom = (len(values) - 1) * (variance / training) ** 2
    return float(stdtrit(freedom, 0.975)) * math.sqrt(variance)
