"""Binary cross entropy of predictions and of the constant baseline."""

import numpy as np
from scipy.special import expit, logit

from phototag.dataset.targets import is_known
from phototag.metrics.ratios import weighted_mean


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Convert logits to probabilities, float64 in 0..1."""
    return np.asarray(expit(logits, dtype=np.float64))


def entry_cross_entropy(targets: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Compute each entry's binary cross entropy in nats, float64 of the shape of `targets`.

    The loss of a logit x with target y is computed as max(x, 0) - x y + log(1 + exp(-|x|)), because
    this form does not overflow. The loss of an entry with an unknown target is 0.
    """
    logits = logits.astype(np.float64)
    losses = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
    return np.where(is_known(targets), losses, 0)


def binary_cross_entropy(targets: np.ndarray, logits: np.ndarray) -> float:
    """Compute the mean binary cross entropy (in nats) of the known entries.

    The result is NaN if no entry is known. Targets may also be label frequencies (0..1).
    """
    known = np.count_nonzero(is_known(targets))
    return float(entry_cross_entropy(targets, logits).sum() / known) if known else float("nan")


def weighted_cross_entropy(
    targets: np.ndarray, logits: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Compute the mean binary cross entropy (in nats) on each resample, float64 [resamples]."""
    per_photo = entry_cross_entropy(targets, logits).mean(axis=1)
    return weighted_mean(per_photo, weights, is_known(targets).mean(axis=1))


def baseline_logits(frequencies: np.ndarray) -> np.ndarray:
    """Return the logits of the constant baseline: the frequency of each label, as a logit.

    Args:
        frequencies: Share of positives of each label on train, 0..1 [num_labels].

    Returns:
        float64 [num_labels]; finite even if a frequency is 0 or 1.
    """
    return np.asarray(logit(frequencies.clip(1e-6, 1 - 1e-6)))


def baseline_loss(frequencies: np.ndarray, targets: np.ndarray) -> float:
    """Compute the mean binary cross entropy (in nats) of the constant baseline.

    A network has learnt nothing from the photos unless its loss is below this baseline loss.

    Args:
        frequencies: Share of positives of each label on train, 0..1 [num_labels].
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels]. Pass label frequencies
            (0..1), [1, num_labels], to get the expected loss on photos with these frequencies.
    """
    logits = np.broadcast_to(baseline_logits(frequencies), targets.shape)
    return binary_cross_entropy(targets, logits)
