"""F1, precision and recall of 0/1 predictions.

For a label without positives, F1, precision and recall are 0. Macro averages include these
zeros, as in scikit-learn with `zero_division=0`.
"""

from typing import Literal

import numpy as np

from phototag.dataset.targets import is_known
from phototag.metrics.ratios import ratio_or_zero, weighted_mean

MIN_POSITIVES = 5  # reports do not judge the scores of labels with fewer positives
SCORES = ("f1", "precision", "recall")


def f1_from_counts(true_positives: np.ndarray, predicted_plus_positives: np.ndarray) -> np.ndarray:
    """Compute F1 = 2 tp / (predicted + positives) from counts; 0 if the denominator is 0."""
    return ratio_or_zero(2 * true_positives, predicted_plus_positives)


def f1_score(
    targets: np.ndarray, predicted: np.ndarray, average: Literal["micro", "macro"]
) -> float:
    """Compute F1 of all entries pooled (micro), or the mean of the F1 of all labels (macro).

    For a single label, `targets` and `predicted` may have the shape [num_photos].
    """
    axis = None if average == "micro" else 0
    hits, chosen, positive = (part.sum(axis=axis) for part in _entries(targets, predicted))
    return float(np.mean(f1_from_counts(hits, chosen + positive)))


def label_scores(
    targets: np.ndarray, predicted: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute F1, precision and recall by label: three arrays, float64 [resamples, num_labels]."""
    return _scores(*(weights @ part.astype(np.float64) for part in _entries(targets, predicted)))


def classification_scores(
    targets: np.ndarray, predicted: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Compute all metrics of 0/1 predictions.

    Returns:
        Metrics by name, float64 [resamples] each: the micro and macro averages of F1, precision and
        recall (`f1_micro`, `f1_macro`, ...); `f1_samples`, the mean of the photos' F1;
        `subset_accuracy`, the share of photos for which every label is predicted correctly; and
        `unlabelled_accuracy`. The latter considers only the photos that are known to have no label:
        it is the share of these for which no label is predicted (NaN if there are no such photos).
        Photos whose entries are all unknown are ignored.
    """
    parts = _entries(targets, predicted)
    counts = [weights @ part.astype(np.float64) for part in parts]
    per_label = _scores(*counts)
    pooled = _scores(*(part.sum(axis=1) for part in counts))
    found: dict[str, np.ndarray] = {}
    for index, name in enumerate(SCORES):
        found[f"{name}_micro"] = pooled[index]
        found[f"{name}_macro"] = per_label[index].mean(axis=1)

    _, chosen, positive = parts
    any_known = np.asarray(is_known(targets).any(axis=1))
    f1, _, _ = _scores(*(part.sum(axis=1, dtype=np.float64) for part in parts))
    found["f1_samples"] = weighted_mean(f1, weights, any_known)
    all_right = (positive == chosen).all(axis=1) & any_known
    found["subset_accuracy"] = weighted_mean(all_right, weights, any_known)
    unlabelled = (targets == 0).all(axis=1)
    right = unlabelled & ~chosen.any(axis=1)
    found["unlabelled_accuracy"] = weighted_mean(right, weights, unlabelled)
    return found


def _entries(
    targets: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return masks of the true, predicted and actual positives; unknown entries are excluded."""
    positive, chosen = targets > 0, predicted.astype(bool) & is_known(targets)
    return positive & chosen, chosen, positive


def _scores(
    true_positives: np.ndarray, predicted: np.ndarray, positives: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute F1, precision and recall from counts."""
    return (
        f1_from_counts(true_positives, predicted + positives),
        ratio_or_zero(true_positives, predicted),
        ratio_or_zero(true_positives, positives),
    )
