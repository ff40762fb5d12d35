"""Decision thresholds that maximise F1."""

import numpy as np


def best_threshold(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Find the threshold t for which predicting probability >= t gives the highest F1.

    Candidates are the midpoints between neighbouring probabilities: a photo a little off those
    seen falls on the side of the nearer one. Of equally good thresholds the highest is taken.

    Args:
        targets: 0/1 [n], at least one 1.
        probabilities: 0..1 [n].

    Returns:
        A threshold in 0..1.
    """
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order].astype(np.float64)
    cuts = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    true_positives = np.cumsum(targets[order])[cuts]
    f1 = 2 * true_positives / (cuts + 1 + targets.sum())
    best = cuts[np.argmax(f1)]
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return float((ranked[best] + below) / 2)


def choose_thresholds(
    targets: np.ndarray, probabilities: np.ndarray, min_positives: int
) -> np.ndarray:
    """Choose one threshold a label, to be judged on other photos than these.

    A label with fewer than `min_positives` positives would be fitted to a handful of photos: it
    takes the one threshold that maximises micro F1 over all labels.

    Args:
        targets: 0/1 [num_images, num_labels].
        probabilities: 0..1, of the same shape.
        min_positives: How many positives a label needs for a threshold of its own.

    Returns:
        float64 [num_labels], each 0..1; 0.5 everywhere when nothing is positive.
    """
    positives = targets.sum(axis=0)
    if not positives.any():
        return np.full(targets.shape[1], 0.5)
    common = best_threshold(targets.ravel(), probabilities.ravel())
    return np.array(
        [
            best_threshold(targets[:, label], probabilities[:, label])
            if positives[label] >= max(min_positives, 1)
            else common
            for label in range(targets.shape[1])
        ]
    )
