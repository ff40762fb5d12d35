"""Optimism: the amount by which the best trial's score is better on val than on new photos."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.classification import classification_scores
from phototag.metrics.losses import weighted_cross_entropy
from phototag.metrics.ranking import average_precision_and_auroc, mean_over_labels
from phototag.search.studies import Objective

RESAMPLES = 200


@dataclass(frozen=True)
class Predictions:
    """Predictions of one trial with one seed, for the photos of the val split.

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
    between the two scores (Tsamardinos, Greasidou and Borboudakis, 2018). The best epoch of each
    trial was also chosen on val, but the estimate does not account for this choice.

    Args:
        trials: One list for each trial, with the predictions for each seed.
        objective: Metric by which the best trial is chosen, after averaging over the seeds.
        seed: Random seed of the resamples.

    Returns:
        Mean amount by which the score is worse on the photos that were not drawn. None if there are
        fewer than two trials, or if every resample contains all photos.
    """
    if len(trials) < 2:
        return None
    weights = [
        bootstrap_weights(len(own.targets), RESAMPLES, seed + number, list(map(str, own.groups)))
        for number, own in enumerate(trials[0])
    ]
    # The first row of weights is for the original sample, which contains all photos.
    usable = np.all([(rows == 0).any(axis=1) for rows in weights], axis=0)
    if not usable.any():
        return None
    drawn = _mean_scores(trials, [rows[usable] for rows in weights], objective)
    left_out = [(rows[usable] == 0).astype(float) for rows in weights]
    others = _mean_scores(trials, left_out, objective)
    sign = -1 if objective == "val_loss" else 1
    best = np.argmax(sign * drawn, axis=0)[None]
    # mAP is NaN if there are no positives in the photos that were not drawn.
    return float(sign * np.nanmean(np.take_along_axis(drawn - others, best, axis=0)))


def _mean_scores(
    trials: Sequence[Sequence[Predictions]], weights: Sequence[np.ndarray], objective: Objective
) -> np.ndarray:
    """Return each trial's objective (mean over the seeds), float64 [num_trials, resamples]."""
    scores = [
        [score(own, rows, objective) for own, rows in zip(seeds, weights, strict=True)]
        for seeds in trials
    ]
    return np.asarray(np.mean(scores, axis=1))


def score(own: Predictions, weights: np.ndarray, objective: Objective) -> np.ndarray:
    """Return the objective on each resample, float64 [resamples]. F1 uses a threshold of 0.5."""
    match objective:
        case "val_loss":
            return weighted_cross_entropy(own.targets, own.logits, weights)
        case "mAP":
            precision, _ = average_precision_and_auroc(own.targets, own.logits, weights)
            return mean_over_labels(precision)
        case "f1_macro":
            return classification_scores(own.targets, own.logits >= 0, weights)["f1_macro"]
