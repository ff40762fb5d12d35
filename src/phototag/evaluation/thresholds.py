"""Decision thresholds that maximise F1 without overfitting it."""

from dataclasses import dataclass

import numpy as np

from phototag.dataset.targets import is_known
from phototag.metrics.ranking import cumulative_weights

RESAMPLES = 200  # enough for a mean and a spread
CANDIDATES = 4096  # thresholds of which all are tried
FEWER = 1024  # of more, so many, evenly, and ...
OWN = 128  # ... so many of each label's own


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
        targets: 1, 0 or `UNKNOWN`, which counts for nothing, [num_photos, num_labels].
        probabilities: 0..1, of the same shape.
        pooling: How many positives the pool is worth; 0 lets each label go alone.
        weights: Of `scores.draw_weights`, [1 + resamples, num_photos]; with one row, the photos as
            they are, there is no mean to take and no spread.

    Returns:
        The thresholds; 0.5 everywhere where nothing is positive.
    """
    num_labels = targets.shape[1]
    if not (targets > 0).any():
        half = np.full(num_labels, 0.5)
        return Thresholds(half, half, half)
    drawn = weights[1:] if len(weights) > 1 else weights
    by_photo = np.ascontiguousarray(drawn.T)
    # Only where a positive is gained can F(t) have its maximum.
    gained = np.unique(probabilities[targets > 0])
    tried = (gained if len(gained) <= CANDIDATES else _thin(gained, FEWER))[::-1]
    photos = np.repeat(np.arange(len(targets), dtype=np.int32), num_labels)
    pool = _count(targets.ravel(), probabilities.ravel(), photos, tried, by_photo)
    share = pooling / np.maximum(pool[2], 1)
    chosen = np.stack(
        [
            _maximize(targets[:, label], probabilities[:, label], tried, pool, share, by_photo)
            for label in range(num_labels)
        ],
        axis=1,
    )
    low, high = np.percentile(chosen, [2.5, 97.5], axis=0)
    return Thresholds(chosen.mean(axis=0), low, high)


def _maximize(
    targets: np.ndarray,
    probabilities: np.ndarray,
    tried: np.ndarray,
    pool: tuple[np.ndarray, np.ndarray, np.ndarray],
    share: np.ndarray,
    by_photo: np.ndarray,
) -> np.ndarray:
    """Return a label's threshold in each resample, [resamples]."""
    own = _thin(np.unique(probabilities[targets > 0]), OWN)
    candidates = np.union1d(tried, own)[::-1]
    # Of the pool, what stands at the next lower threshold that was counted.
    place = np.minimum(np.searchsorted(-tried, -candidates), len(tried) - 1)
    photos = np.arange(len(targets), dtype=np.int32)
    right, total, _ = _count(targets, probabilities, photos, candidates, by_photo)
    gain, size = 2 * pool[0][place], pool[1][place]
    f1 = (2 * right + share * gain) / np.maximum(total + share * size, 1e-12)
    best = candidates[f1.argmax(axis=0)]
    # Halfway to the label's next lower probability: a photo a little off those seen then falls on
    # the side of the nearer one. Below the lowest probability the neighbour is 0.
    seen = probabilities[is_known(targets)]
    rising = np.append(0, np.sort(seen if len(seen) else probabilities))
    return np.asarray((best + rising[np.searchsorted(rising[1:], best)]) / 2)


def _count(
    targets: np.ndarray,
    probabilities: np.ndarray,
    photos: np.ndarray,
    candidates: np.ndarray,
    by_photo: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count true positives, and predicted plus positives, at every candidate; and positives.

    Returns:
        [num_candidates, resamples] twice, and [resamples].
    """
    order = np.argsort(-probabilities, kind="stable")
    order = order[is_known(targets[order])]
    taken = np.searchsorted(-probabilities[order], -candidates, side="right")
    places = np.flatnonzero(targets[order] > 0)
    ends = np.append(np.searchsorted(places, taken), len(places))
    hits = cumulative_weights(photos[order[places]], ends, by_photo)
    return hits[:-1], cumulative_weights(photos[order], taken, by_photo) + hits[-1], hits[-1]


def _thin(rising: np.ndarray, number: int) -> np.ndarray:
    """Take that many of the values, evenly, the first and the last among them."""
    if len(rising) <= number:
        return rising
    return np.asarray(rising[np.linspace(0, len(rising) - 1, number).round().astype(int)])
