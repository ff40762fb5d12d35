"""Estimates of precision, recall and F1 without labels, from calibrated probabilities.

If the calibrated probabilities are right, the expected number of true positives is their sum over
the predicted entries, and the expected number of positives is their sum over all entries.
"""

import numpy as np

from phototag.metrics.classification import SCORES, f1_from_counts
from phototag.metrics.ratios import ratio_or_zero
from phototag.monitoring.calibrators import calibrate

AVERAGES = ("micro", "macro")  # first columns of an array of scores; the labels follow


def estimate_scores(
    calibrators: np.ndarray, logits: np.ndarray, predicted: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the scores and the share of positives of each label.

    Each resample uses other calibrators, and draws the unknown targets from their calibrated
    probabilities. The resamples thus show how uncertain the scores of these photos are.

    Args:
        calibrators: Result of `fit_calibrators`, [1 + resamples, num_labels, 2].
        logits: Logits of the photos, float [num_photos, num_labels].
        predicted: Whether each label is predicted, bool [num_photos, num_labels].
        seed: Seed of the drawn targets.

    Returns:
        Scores, float64 [1 + resamples, 3, 2 + num_labels], as returned by `score_counts`, and share
        of positives, float64 [1 + resamples, num_labels].
    """
    rng = np.random.default_rng(seed)
    hits = np.empty((len(calibrators), logits.shape[1]))
    positives = np.empty_like(hits)
    for row, calibrator in enumerate(calibrators):
        targets = calibrate(calibrator, logits)
        if row:
            targets = rng.random(targets.shape) < targets
        hits[row], positives[row] = (targets * predicted).sum(axis=0), targets.sum(axis=0)
    scores = score_counts(hits, predicted.sum(axis=0), positives)
    return scores, positives / max(len(logits), 1)


def score_counts(
    true_positives: np.ndarray, predicted: np.ndarray, positives: np.ndarray
) -> np.ndarray:
    """Compute F1, precision and recall from counts of each label, [rows, num_labels].

    Returns:
        float64 [rows, 3, 2 + num_labels]. The second axis has the order of `SCORES`. The last axis
        contains the micro average, the macro average and then each label.
    """
    predicted = np.broadcast_to(predicted, true_positives.shape)
    counts = [true_positives, predicted, positives]
    pooled = [part.sum(axis=1, keepdims=True) for part in counts]
    micro, by_label = (
        np.stack(
            [f1_from_counts(hits, chosen + positive), ratio_or_zero(hits, chosen),
             ratio_or_zero(hits, positive)],
            axis=1,
        )
        for hits, chosen, positive in (pooled, counts)
    )  # fmt: skip
    return np.concatenate([micro, by_label.mean(axis=2, keepdims=True), by_label], axis=2)


def name_scores(values: np.ndarray) -> dict[str, float]:
    """Return the averages of scores, [3, 2 + num_labels], by name, such as `f1_micro`."""
    return {
        f"{score}_{average}": float(values[row, column])
        for row, score in enumerate(SCORES)
        for column, average in enumerate(AVERAGES)
    }
