"""Differences between the metrics of two models on the same photos, with confidence intervals."""

from collections.abc import Iterable, Mapping

import numpy as np
from scipy.special import stdtrit


def list_differences(
    new: Mapping[str, np.ndarray],
    old: Mapping[str, np.ndarray],
    metrics: Iterable[str],
    groups: float,
    tail: float,
) -> list[tuple[str, float, float, float, float, float]]:
    """Return the name, new value, old value, difference and interval bounds of each metric.

    `new` and `old` contain the values of each metric on the original sample (first value) and on
    each resample, float64 [1 + resamples]. `bound_difference` describes `groups` and `tail`.
    """
    return [
        (
            name,
            float(new[name][0]),
            float(old[name][0]),
            float(new[name][0] - old[name][0]),
            *bound_difference(new[name] - old[name], groups, tail),
        )
        for name in metrics
    ]


def bound_difference(differences: np.ndarray, groups: float, tail: float) -> tuple[float, float]:
    """Return the confidence interval of a difference, with the coverage `1 - 2 * tail`.

    A thousand resamples are too few to estimate percentiles at the small levels of late challenges.
    Therefore, the bounds are `difference - t * s` and `difference + t * s`. Here, `s` is the
    standard deviation over the resamples, and `t` is a quantile of Student's t. The variance is
    estimated from n groups and with r resamples: its relative variance is that of a product of two
    chi-squared variables. The degrees of freedom are those of one variable with the same value.

    Args:
        differences: Differences on the original sample (first value) and on each resample, float64
            [1 + resamples].
        groups: Number of groups in the sample, returned by `effective_groups`.
        tail: Probability on each side of the interval, 0.025 for a 95% interval.

    Returns:
        Lower and upper bound. Both are NaN if there are too few groups: the probability that all
        groups favour the same model by chance must not be above `tail`.
    """
    n, r = groups, np.count_nonzero(np.isfinite(differences[1:]))
    if 0.5**n > tail or r < 2:
        return float("nan"), float("nan")
    freedom = 1 / (1 / (n - 1) + 1 / (r - 1) + 2 / ((n - 1) * (r - 1)))
    deviation = np.nanstd(differences[1:], ddof=1) * np.sqrt(n / (n - 1))
    half = stdtrit(freedom, 1 - tail) * deviation
    return float(differences[0] - half), float(differences[0] + half)
