"""What training watches, in NumPy; scikit-learn is the oracle in the tests.

`scores` has all metrics of an evaluation, with their intervals.
"""

import numpy as np


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Map logits to probabilities, float64 in 0..1, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))


def f1_score(targets: np.ndarray, predicted: np.ndarray, average: str) -> float:
    """Compute F1 = 2 tp / (2 tp + fp + fn); where nothing is true or predicted it is 0.

    Args:
        targets: 0/1 [num_images, num_labels].
        predicted: 0/1 of the same shape.
        average: `micro` pools all decisions, `macro` is the mean over labels.

    Raises:
        ValueError: An unknown average.
    """
    if average not in ("micro", "macro"):
        raise ValueError(f"average must be micro or macro, not {average!r}")
    axis = None if average == "micro" else 0
    targets, predicted = targets.astype(bool), predicted.astype(bool)
    true_positives = (targets & predicted).sum(axis=axis)
    somewhere = targets.sum(axis=axis) + predicted.sum(axis=axis)
    return float(np.mean(2 * true_positives / np.maximum(somewhere, 1)))


def binary_cross_entropies(targets: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Compute the binary cross entropy of every decision, in nats, float64 of the inputs' shape.

    Stable for any logit x and target y: max(x, 0) - x y + log(1 + exp(-|x|)).
    """
    logits = logits.astype(np.float64)
    return np.asarray(np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits))))


def binary_cross_entropy(targets: np.ndarray, logits: np.ndarray) -> float:
    """Compute the mean binary cross entropy over photos and labels, in nats."""
    return float(binary_cross_entropies(targets, logits).mean())
