"""Decision thresholds that maximise F1 without overfitting it."""

from dataclasses import dataclass

import numpy as np

RESAMPLES = 200  # enough for a mean and a spread
CHUNK = 25  # resamples at a time: bounds the memory


@dataclass(frozen=True)
class Thresholds:
    """One threshold a label, and how sure it is.

    Attributes:
        values: 0..1, float64 [num_labels].
        low: 2.5th percentile over the resamples, float64 [num_labels].
        high: 97.5th percentile, float64 [num_labels].
    """

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray


def choose_thresholds(
    targets: np.ndarray, probabilities: np.ndarray, pooling: float, weights: np.ndarray
) -> Thresholds:
    """Choose one threshold a label, to be judged on other photos than these.

    The threshold that maximises a label's F1 follows the accidents of its few positives. Two
    things hold it back. Each label borrows from all labels pooled, as if `pooling` more of its
    positives behaved as the pool does:

        F(t) = (2 tp + w 2 TP) / (predicted + positives + w (PREDICTED + POSITIVES))

    with w = pooling / POSITIVES, small letters for the label and capitals for the pool, all at
    threshold t: a label with few positives takes the pool's threshold, one with many its own. And
    F(t) is maximised in every resample, and the mean of these thresholds taken (bagging; Breiman,
    1996), because the maximum of one ragged curve jumps.

    Args:
        targets: 0/1 [num_photos, num_labels].
        probabilities: 0..1, of the same shape.
        pooling: How many positives the pool is worth; 0 lets each label go alone.
        weights: Of `scores.draw_weights`, [1 + resamples, num_photos]; with one row, the photos as
            they are, there is no mean to take and no spread.

    Returns:
        The thresholds; 0.5 everywhere where nothing is positive.
    """
    num_labels = targets.shape[1]
    if not targets.any():
        half = np.full(num_labels, 0.5)
        return Thresholds(half, half, half)
    # Only where a positive is gained can F(t) have its maximum.
    candidates = np.unique(probabilities[targets.astype(bool)])[::-1]
    middles = _middles(probabilities, candidates)
    drawn = weights[1:] if len(weights) > 1 else weights
    chosen = np.concatenate(
        [
            _maximize(targets, probabilities, candidates, middles, pooling, drawn[i : i + CHUNK])
            for i in range(0, len(drawn), CHUNK)
        ]
    )
    low, high = np.percentile(chosen, [2.5, 97.5], axis=0)
    return Thresholds(chosen.mean(axis=0), low, high)


def _maximize(
    targets: np.ndarray,
    probabilities: np.ndarray,
    candidates: np.ndarray,
    middles: np.ndarray,
    pooling: float,
    weights: np.ndarray,
) -> np.ndarray:
    """Return each resample's thresholds, [resamples, num_labels]."""
    labels = range(targets.shape[1])
    counts = [_count(targets[:, i], probabilities[:, i], candidates, weights) for i in labels]
    gain = sum(2 * right for right, _ in counts)
    size = sum(total for _, total in counts)
    positives = np.maximum((weights @ targets).sum(axis=1, keepdims=True), 1)
    share = pooling / positives
    best = [
        np.argmax((2 * right + share * gain) / np.maximum(total + share * size, 1e-12), axis=1)
        for right, total in counts
    ]
    return np.stack([middles[label][best[label]] for label in labels], axis=1)


def _count(
    targets: np.ndarray, probabilities: np.ndarray, candidates: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count a label's true positives, and predicted plus positives, at every candidate."""
    order = np.argsort(-probabilities, kind="stable")
    taken = np.searchsorted(-probabilities[order], -candidates, side="right")
    ranked = np.pad(weights[:, order], ((0, 0), (1, 0)))
    right = np.cumsum(ranked * np.append(0, targets[order]), axis=1)
    return right[:, taken], np.cumsum(ranked, axis=1)[:, taken] + right[:, -1:]


def _middles(probabilities: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return, for each label, halfway from each candidate to the label's next lower probability.

    A photo a little off those seen then falls on the side of the nearer one. Below the lowest
    probability the neighbour is 0.
    """
    rising = np.sort(probabilities, axis=0)
    padded = np.vstack([np.zeros(rising.shape[1]), rising])
    return np.stack(
        [
            (candidates + padded[np.searchsorted(rising[:, label], candidates), label]) / 2
            for label in range(rising.shape[1])
        ]
    )
