"""Optimism: the amount by which the best trial's score is better on val than on new photos."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.classification import label_scores
from phototag.metrics.losses import weighted_cross_entropy
from phototag.metrics.ranking import average_precision_and_auroc, mean_over_labels
from phototag.search.studies import Objective

RESAMPLES = 200


@dataclass(frozen=True)
class Predictions:
    """Predictions of one trial with one seed, for the photos on which trials are compared.

    Attributes:
        logits: Predicted logits, float [num_photos, num_labels].
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels]. For the same seed, they
            are the same in all trials.
        groups: Group of each photo, [num_photos]. Photos of a group are resampled together.
    """

    logits: np.ndarray
    targets: np.ndarray
    groups: np.ndarray


def estimate_optimism(
    trials: Sequence[Sequence[Predictions]], objective: Objective, seed: int
) -> float | None:
    """Estimate the optimism of the best trial by bootstrap bias correction.

    Each resample draws whole groups of val photos. The best trial is chosen on the drawn photos and
    also scored on the photos that were not drawn (about 37%). The optimism is the mean difference
    between the two scores (Tsamardinos, Greasidou and Borboudakis, 2018), minus the same difference
    of the trial that is best on all val photos, which is not due to the choice. The best epoch of
    each trial was also chosen on val, but the estimate does not account for this choice.

    Args:
        trials: One list for each trial, with the predictions for each seed.
        objective: Metric by which the best trial is chosen, after averaging over the seeds.
        seed: Random seed of the resamples.

    Returns:
        Optimism: positive if the score is expected to be worse on other photos than on val, and
        negative if better. None if there are fewer than two trials, or if no resample can be scored
        on both sides.
    """
    if len(trials) < 2:
        return None
    weights = [
        bootstrap_weights(len(own.targets), RESAMPLES, seed + number, list(map(str, own.groups)))
        for number, own in enumerate(trials[0])
    ]
    if min(map(len, weights)) < 2:  # all photos are in one group
        return None
    others = [(rows == 0).astype(float) for rows in weights]
    labels = []  # for each seed, the labels with positives in both sets of photos
    for own, rows in zip(trials[0], weights, strict=True):
        positives = (own.targets > 0).astype(float)
        labels.append((rows @ positives > 0) & ((rows == 0) @ positives > 0))
        labels[-1][0] = True  # the first row is for the original sample, which has all photos
    sign = -1 if objective == "val_loss" else 1
    drawn = sign * _mean_scores(trials, weights, objective, labels)
    differences = drawn - sign * _mean_scores(trials, others, objective, labels)
    winner = drawn[:, 0].argmax()
    usable = np.isfinite(differences).all(axis=0)  # NaN if no photo or label can be scored
    usable[0] = False  # no photos are left out
    if not usable.any():
        return None
    chosen = drawn[:, usable].argmax(axis=0)
    differences = differences[:, usable]
    return float(np.mean(differences[chosen, np.arange(len(chosen))] - differences[winner]))


def _mean_scores(
    trials: Sequence[Sequence[Predictions]],
    weights: Sequence[np.ndarray],
    objective: Objective,
    labels: Sequence[np.ndarray],
) -> np.ndarray:
    """Return each trial's objective (mean over the seeds), float64 [num_trials, resamples]."""
    scores = [
        [
            score(own, rows, objective, scored)
            for own, rows, scored in zip(seeds, weights, labels, strict=True)
        ]
        for seeds in trials
    ]
    return np.asarray(np.mean(scores, axis=1))


def score(
    own: Predictions, weights: np.ndarray, objective: Objective, labels: np.ndarray | bool = True
) -> np.ndarray:
    """Return the objective on each resample, float64 [resamples]. F1 uses a threshold of 0.5.

    `labels` selects the labels that mAP and macro F1 average, bool [resamples, num_labels] (omit to
    average all). The val loss always includes all labels.
    """
    if objective == "val_loss":
        return weighted_cross_entropy(own.targets, own.logits, weights)
    if objective == "mAP":
        per_label, _ = average_precision_and_auroc(own.targets, own.logits, weights)
    else:
        per_label, _, _ = label_scores(own.targets, own.logits >= 0, weights)
    return mean_over_labels(np.where(labels, per_label, np.nan))
