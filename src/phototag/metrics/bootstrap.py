"""Bootstrap resamples of photos, and the confidence intervals computed from them."""

import warnings
from collections.abc import Sequence

import numpy as np


def bootstrap_weights(
    num_photos: int, resamples: int, seed: int, groups: Sequence[str] = ()
) -> np.ndarray:
    """Draw how often each photo counts in bootstrap resamples (Efron, 1979).

    Photos of one group (an album, or copies of one photo) are correlated. Therefore whole groups
    are drawn (cluster bootstrap; Davison and Hinkley, 1997, section 3.8): intervals computed from
    single photos would be too narrow.

    Args:
        num_photos: Number of photos.
        resamples: Number of resamples.
        seed: Seed of the random generator.
        groups: Group of each photo, [num_photos]. Omit if every photo is its own group.

    Returns:
        float64 [1 + resamples, num_photos]. The first row is all ones: the original sample. Each
        other row draws as many groups as there are, with replacement. With a single group there is
        nothing to draw from, and only the first row is returned.
    """
    names = np.asarray(groups if len(groups) else np.arange(num_photos))
    _, first, group = np.unique(names, return_index=True, return_inverse=True)
    # Groups are numbered by their first photo, so that groups of one photo keep the photos' order.
    group = np.argsort(np.argsort(first))[group]
    number = len(first)
    if number < 2:
        return np.ones((1, num_photos))
    drawn = np.random.default_rng(seed).multinomial(
        number, np.full(number, 1 / number), size=resamples
    )
    return np.vstack([np.ones(num_photos), drawn[:, group]])


def confidence_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95% percentile interval of a metric: the 2.5th and 97.5th percentiles.

    Args:
        values: Metric per resample, [1 + resamples, ...]. The first row, the original sample, is
            ignored, and so are resamples whose metric is NaN.

    Returns:
        Lower and upper bound, of shape `values.shape[1:]`; NaN if no resample has a value.
    """
    resampled = values[1:] if len(values) > 1 else np.full_like(values, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # raised if no resample has a value
        low, high = np.nanpercentile(resampled, [2.5, 97.5], axis=0)
    return low, high
