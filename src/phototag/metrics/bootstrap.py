"""Bootstrap resamples of photos, and confidence intervals computed from these resamples."""

import warnings
from collections.abc import Sequence

import numpy as np


def bootstrap_weights(
    num_photos: int, resamples: int, seed: int, groups: Sequence[str] = ()
) -> np.ndarray:
    """Draw bootstrap resamples (Efron, 1979) and count each photo's occurrences in each resample.

    Photos of the same group (an album, or copies of one photo) are correlated. If single photos
    were resampled, the confidence intervals would be too narrow. Therefore whole groups are
    resampled (cluster bootstrap; Davison and Hinkley, 1997, section 3.8).

    Args:
        num_photos: Number of photos.
        resamples: Number of resamples to draw.
        seed: Seed of the random generator.
        groups: Name of each photo's group, [num_photos]. Omit to put every photo into its own
            group.

    Returns:
        float64 [1 + resamples, num_photos]. The first row, all ones, is the original sample. Each
        other row is a resample: the same number of groups, drawn with replacement. If there is only
        one group, resampling is impossible, and only the first row is returned.
    """
    names = np.asarray(groups if len(groups) else np.arange(num_photos))
    _, first, group = np.unique(names, return_index=True, return_inverse=True)
    # Number the groups in the order in which they first occur. If every photo is its own group, the
    # group numbers are then equal to the photo positions.
    group = np.argsort(np.argsort(first))[group]
    number = len(first)
    if number < 2:
        return np.ones((1, num_photos))
    drawn = np.random.default_rng(seed).multinomial(
        number, np.full(number, 1 / number), size=resamples
    )
    return np.vstack([np.ones(num_photos), drawn[:, group]])


def effective_groups(groups: Sequence[str]) -> float:
    """Return the effective number of groups (Kish, 1965): n groups of equal size count as n.

    If one group has most of the photos, the variance over groups is as uncertain as that of few
    groups, however many small groups there are.

    Args:
        groups: Name of each photo's group, [num_photos].
    """
    sizes = np.unique(groups, return_counts=True)[1]
    return float(len(groups) ** 2 / (sizes**2).sum())


def confidence_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95% confidence interval of a metric: its 2.5th and 97.5th bootstrap percentiles.

    Args:
        values: Metric of each resample, [1 + resamples, ...]. The first row, which belongs to the
            original sample, is ignored. Resamples whose metric is NaN are ignored too.

    Returns:
        Lower and upper bounds, both of shape `values.shape[1:]`; NaN if all resamples are NaN.
    """
    resampled = values[1:] if len(values) > 1 else np.full_like(values, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy warns if all resamples are NaN
        low, high = np.nanpercentile(resampled, [2.5, 97.5], axis=0)
    return low, high
