"""Optimism of choosing the best trial: its score on val is better than on other photos."""

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
    """Predictions of one trial on the val photos of one seed.

    Attributes:
        logits: float [num_photos, num_labels].
        targets: [num_photos, num_labels], 1, 0 or `UNKNOWN`; the same for all trials of a seed.
        groups: Group of each photo, [num_photos]; photos of a group are resampled together.
    """

    logits: np.ndarray
    targets: np.ndarray
    groups: np.ndarray


def estimate_optimism(
    trials: Sequence[Sequence[Predictions]], objective: Objective, seed: int
) -> float | None:
    """Estimate the optimism by bootstrap bias correction.

    In each resample of the val photos (whole groups) the best trial is chosen on the drawn photos
    and scored on the photos that were not drawn, about 37%. The mean difference of the two scores
    is the optimism (Tsamardinos, Greasidou and Borboudakis, 2018). It does not include that each
    trial chose its best epoch on val.

    Args:
        trials: Predictions of each trial, for each seed.
        objective: Metric by which the best trial is chosen, as the mean over seeds.
        seed: Seed of the resamples.

    Returns:
        Amount by which the score on the photos that were not drawn is worse; None for fewer than
        two trials, or if no resample leaves photos out.
    """
    if len(trials) < 2:
        return None
    weights = [
        bootstrap_weights(len(own.targets), RESAMPLES, seed + number, list(map(str, own.groups)))
        for number, own in enumerate(trials[0])
    ]
    # The first row is the original sample, which leaves no photo out.
    usable = np.all([(rows == 0).any(axis=1) for rows in weights], axis=0)
    if not usable.any():
        return None
    drawn = _mean_scores(trials, [rows[usable] for rows in weights], objective)
    left_out = [(rows[usable] == 0).astype(float) for rows in weights]
    others = _mean_scores(trials, left_out, objective)
    sign = -1 if objective == "val_loss" else 1
    best = np.argmax(sign * drawn, axis=0)[None]
    # mAP is NaN if the left-out photos have no positives.
    return float(sign * np.nanmean(np.take_along_axis(drawn - others, best, axis=0)))


def _mean_scores(
    trials: Sequence[Sequence[Predictions]], weights: Sequence[np.ndarray], objective: Objective
) -> np.ndarray:
    """Return each trial's objective as the mean over seeds, float64 [num_trials, resamples]."""
    scores = [
        [score(own, rows, objective) for own, rows in zip(seeds, weights, strict=True)]
        for seeds in trials
    ]
    return np.asarray(np.mean(scores, axis=1))


def score(own: Predictions, weights: np.ndarray, objective: Objective) -> np.ndarray:
    """Return a trial's objective on each resample, float64 [resamples]; F1 at the threshold 0.5."""
    match objective:
        case "val_loss":
            return weighted_cross_entropy(own.targets, own.logits, weights)
        case "mAP":
            precision, _ = average_precision_and_auroc(own.targets, own.logits, weights)
            return mean_over_labels(precision)
        case "f1_macro":
            return classification_scores(own.targets, own.logits >= 0, weights)["f1_macro"]
