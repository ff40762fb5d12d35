"""Optimism of choosing the best trial: its score on val is better than on other photos."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.classification import classification_scores
from phototag.metrics.losses import weighted_cross_entropy
from phototag.metrics.ranking import average_precision_and_auroc
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


@dataclass(frozen=True)
class Optimism:
    """Optimism of the chosen trial, estimated by bootstrap.

    Attributes:
        chosen: Mean score of the chosen trial on the photos on which it was chosen.
        unseen: Mean score of the chosen trial on the photos left out of the resample.
        difference: Amount by which `unseen` is worse than `chosen`.
        trials: Number of trials among which was chosen.
    """

    chosen: float
    unseen: float
    difference: float
    trials: int


def estimate_optimism(
    trials: Sequence[Sequence[Predictions]], objective: Objective, seed: int
) -> Optimism | None:
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
        The estimate; None for fewer than two trials, or if no resample leaves photos out.
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
    drawn = mean_scores(trials, [rows[usable] for rows in weights], objective)
    left_out = [(rows[usable] == 0).astype(float) for rows in weights]
    scores = mean_scores(trials, left_out, objective)
    sign = -1 if objective == "val_loss" else 1
    best = np.argmax(sign * drawn, axis=0)[None]
    chosen, unseen = (np.take_along_axis(each, best, axis=0)[0] for each in (drawn, scores))
    lost = float((sign * (chosen - unseen)).mean())
    return Optimism(float(chosen.mean()), float(unseen.mean()), lost, len(trials))


def mean_scores(
    trials: Sequence[Sequence[Predictions]], weights: Sequence[np.ndarray], objective: Objective
) -> np.ndarray:
    """Return each trial's objective as the mean over seeds, float64 [num_trials, resamples].

    Args:
        trials: Predictions of each trial, for each seed.
        weights: float [resamples, num_photos] for each seed.
        objective: Metric to compute.
    """
    return np.array(
        [
            np.mean(
                [score(own, rows, objective) for own, rows in zip(seeds, weights, strict=True)],
                axis=0,
            )
            for seeds in trials
        ]
    )


def score(own: Predictions, weights: np.ndarray, objective: Objective) -> np.ndarray:
    """Return a trial's objective on each resample, float64 [resamples].

    Args:
        own: Predictions of the trial.
        weights: float [resamples, num_photos].
        objective: Metric to compute; F1 is at the threshold 0.5.
    """
    match objective:
        case "val_loss":
            return weighted_cross_entropy(own.targets, own.logits, weights)
        case "mAP":
            precision, _ = average_precision_and_auroc(own.targets, own.logits, weights)
            # The precision of a label without positives is NaN.
            known = np.isfinite(precision).sum(axis=1)
            return np.asarray(np.nansum(precision, axis=1) / np.maximum(known, 1))
        case "f1_macro":
            return classification_scores(own.targets, own.logits >= 0, weights)["f1_macro"]
