"""Divisions that define the result for a denominator of 0."""

import numpy as np


def ratio_or_zero(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, and return 0 for a denominator of 0."""
    return np.asarray(numerator / np.where(denominator > 0, denominator, 1), np.float64)


def ratio_or_nan(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, and return NaN for a denominator of 0."""
    return np.where(denominator > 0, ratio_or_zero(numerator, denominator), np.nan)


def weighted_mean(values: np.ndarray, weights: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Compute the weighted mean over photos of which only a share is known.

    Args:
        values: Sum over the known part of each photo, [num_photos].
        weights: Bootstrap weights, float [resamples, num_photos].
        shares: Known part of each photo, 0..1 [num_photos].

    Returns:
        float64 [resamples]; NaN if nothing is known.
    """
    return ratio_or_nan(weights @ values.astype(np.float64), weights @ shares.astype(np.float64))
