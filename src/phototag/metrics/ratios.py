"""Ratios whose denominator may be 0, and a weighted mean."""

import numpy as np


def ratio_or_zero(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return numerator / denominator as float64, or 0 if the denominator is 0."""
    return np.asarray(numerator / np.where(denominator > 0, denominator, 1), np.float64)


def ratio_or_nan(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return numerator / denominator as float64, or NaN if the denominator is 0."""
    return np.where(denominator > 0, ratio_or_zero(numerator, denominator), np.nan)


def weighted_mean(values: np.ndarray, weights: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Compute a weighted mean over photos: sum(weights * values) / sum(weights * shares).

    Args:
        values: Value of each photo, [num_photos], to which unknown entries contribute 0.
        weights: Bootstrap weights, float [resamples, num_photos].
        shares: Share of each photo's entries that contribute to `values`, 0..1 [num_photos].

    Returns:
        Mean of each resample, float64 [resamples]; NaN if a resample has no known entries.
    """
    return ratio_or_nan(weights @ values.astype(np.float64), weights @ shares.astype(np.float64))
