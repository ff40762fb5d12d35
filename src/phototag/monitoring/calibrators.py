"""Calibrators: logistic functions from the logit of a label to the probability of the label.

Each label has one calibrator (Platt, 1999), which is fitted on held-out photos, so that the mean of
the calibrated probabilities is the expected share of positives. Labels with few positives borrow
from the other labels: a Gaussian prior shrinks each calibrator towards the pooled one, which is
fitted on the entries of all labels.
"""

import numpy as np
from scipy.special import expit

from phototag.dataset.targets import is_known

STEPS = 30  # Newton steps; a fit needs about 8
PRECISION = 1.0  # inverse variance of the Gaussian prior of intercept and slope


def fit_calibrators(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit one calibrator per label.

    The calibrators of a resample are those of the original sample after one Newton step.

    Args:
        logits: Logits of held-out photos, float [num_photos, num_labels].
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels].
        weights: Bootstrap weights, float [1 + resamples, num_photos]. The first row is all ones.

    Returns:
        Intercept and slope, float64 [1 + resamples, num_labels, 2].
    """
    known = np.flatnonzero(is_known(targets).ravel())
    pooled = np.array([[[0.0, 1.0]]])
    x, y = (part.reshape(-1, 1)[known] for part in (logits, targets))
    for _ in range(STEPS):
        pooled = _improve(pooled, x, y, np.ones((1, len(known))), np.array([0.0, 1.0]))
    fitted = np.tile(pooled, (1, logits.shape[1], 1))
    for _ in range(STEPS):
        fitted = _improve(fitted, logits, targets, weights[:1], pooled[0, 0])
    resampled = _improve(fitted, logits, targets, weights[1:], pooled[0, 0])
    return np.concatenate([fitted, resampled])


def _improve(
    start: np.ndarray,
    logits: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    prior: np.ndarray,
) -> np.ndarray:
    """Take one Newton step from `start`, [1, num_labels, 2], for each row of weights."""
    probabilities = calibrate(start[0], logits)
    known = is_known(targets)
    residuals = np.where(known, probabilities - targets, 0)
    curvature = np.where(known, probabilities * (1 - probabilities), 0)
    gradient = np.stack([weights @ residuals, weights @ (residuals * logits)], axis=-1)
    gradient += PRECISION * (start - prior)
    sums = [weights @ (curvature * logits**power) for power in range(3)]
    hessian = np.stack([sums[0], sums[1], sums[1], sums[2]], axis=-1)
    hessian = hessian.reshape(*gradient.shape, 2) + PRECISION * np.eye(2)
    step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
    return np.asarray(start - np.clip(step, -1, 1))


def calibrate(calibrators: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Map logits, [num_photos, num_labels], to calibrated probabilities of the same shape."""
    return np.asarray(expit(calibrators[:, 0] + calibrators[:, 1] * logits))
