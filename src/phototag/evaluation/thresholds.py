"""Choice of one decision threshold per label."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from phototag.dataset.dataset import Dataset
from phototag.dataset.targets import is_known
from phototag.evaluation.params import F1, EvaluateParams, Target
from phototag.evaluation.targets import fit_target
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.classification import f1_from_counts
from phototag.metrics.losses import sigmoid
from phototag.metrics.ranking import cumulative_weights

RESAMPLES = 200  # number of bootstrap resamples; enough for a mean and a 95% interval
MAX_CANDIDATES = 4096  # if there are more candidate thresholds, only quantiles of them are tried
POOLED_CANDIDATES = 1024  # number of quantiles taken from the candidates of all labels together
LABEL_CANDIDATES = 128  # largest number of additional candidates taken from each label


@dataclass(frozen=True)
class Thresholds:
    """Decision thresholds of all labels, with their 95% intervals.

    Attributes:
        values: Thresholds, 0..1, float64 [num_labels]; `ABSTAIN` for a label that abstains.
        low: 2.5th bootstrap percentile of each threshold, float64 [num_labels]; NaN if the target
            of the label is not F1.
        high: 97.5th bootstrap percentile of each threshold, in the same format.
        best_f1: Thresholds with the highest F1, whatever the target is, float64 [num_labels].
        chosen_on: Description of the photos on which the thresholds were chosen, such as "val".
        targets: Target of each label; empty if the target of all labels is F1.
    """

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    best_f1: np.ndarray
    chosen_on: str = "val"
    targets: Sequence[Target] = ()


def choose_thresholds(
    photos: Dataset, logits: np.ndarray, chosen_on: str, params: EvaluateParams, seed: int
) -> Thresholds:
    """Choose the thresholds on photos on which the model was not fitted.

    These are the photos of val, and those of train if there are out-of-fold logits. For a linear
    probe (`optimizer: lbfgs`), the `train` stage writes out-of-fold logits: each photo of train and
    val gets the logits of a probe that was fitted without this photo. Train and val together
    contain several times as many positives as val alone, which makes the threshold of a rare label
    more reliable.

    Args:
        photos: Photos with their targets and groups.
        logits: Logits of the photos, float [num_photos, num_labels].
        chosen_on: Description of the photos, such as "val".
        params: Params in the group `evaluate`: target of each label, and prior strength.
        seed: Seed of the bootstrap resamples.

    Raises:
        InputError: A target is set for a label that the photos do not have.
    """
    targets, probabilities = params.list_targets(photos.labels), sigmoid(logits)
    weights = bootstrap_weights(len(photos), RESAMPLES, seed, photos.groups)
    best = fit_thresholds(photos.targets, probabilities, params.prior_strength, weights)
    best = replace(best, chosen_on=chosen_on)
    if all(target == F1 for target in targets):
        return best
    values, low, high = best.values.copy(), best.low.copy(), best.high.copy()
    for label, target in enumerate(targets):
        if target != F1:
            values[label] = fit_target(
                photos.targets[:, label], probabilities[:, label], photos.groups, target
            )
            low[label] = high[label] = np.nan
    return Thresholds(values, low, high, best.values, chosen_on, targets)


def fit_thresholds(
    targets: np.ndarray, probabilities: np.ndarray, prior_strength: float, weights: np.ndarray
) -> Thresholds:
    """For each label, find the threshold that maximizes a regularized F1.

    If a label has few positives, the threshold that maximizes its F1 overfits these photos. Two
    methods reduce overfitting. First, the label's threshold t maximizes

        F(t) = 2 (tp + w TP) / (predicted + positives + w (PREDICTED + POSITIVES))

    with w = prior_strength / POSITIVES. Here tp, predicted and positives are the label's numbers of
    true, predicted and actual positives. TP, PREDICTED and POSITIVES are the same numbers for all
    labels pooled. The pool has much influence on the threshold of a label with few positives,
    and little influence if the label has many positives. Second, F(t) is maximized on each
    bootstrap resample, and the resulting thresholds are averaged (bagging; Breiman, 1996), because
    the best threshold of a single sample is unstable.

    Args:
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels].
        probabilities: Probabilities (0..1), of the same shape.
        prior_strength: Number of pseudo-positives that the pool of all labels adds to each label.
            If it is 0, the threshold of a label does not depend on other labels.
        weights: Weights returned by `bootstrap_weights`, float [1 + resamples, num_photos]. If
            there is only one row, the thresholds maximize F(t) on the original sample.

    Returns:
        Thresholds and their intervals. If no label has positives, every threshold is 0.5.
    """
    num_labels = targets.shape[1]
    if not (targets > 0).any():
        half = np.full(num_labels, 0.5)
        return Thresholds(half, half, half, half)
    resamples = weights[1:] if len(weights) > 1 else weights
    by_photo = np.ascontiguousarray(resamples.T)
    # F(t) is largest at the probability of some positive: no other candidates are needed.
    tried = np.unique(probabilities[targets > 0])
    if len(tried) > MAX_CANDIDATES:
        tried = _take_evenly(tried, POOLED_CANDIDATES)
    tried = tried[::-1]
    photos = np.repeat(np.arange(len(targets), dtype=np.int32), num_labels)
    pool = _count(targets.ravel(), probabilities.ravel(), photos, tried, by_photo)
    scale = prior_strength / np.maximum(pool[2], 1)
    chosen = np.stack(
        [
            _maximize_f1(targets[:, label], probabilities[:, label], tried, pool, scale, by_photo)
            for label in range(num_labels)
        ],
        axis=1,
    )
    low, high = np.percentile(chosen, [2.5, 97.5], axis=0)
    values = chosen.mean(axis=0)
    return Thresholds(values, low, high, values)


def _maximize_f1(
    targets: np.ndarray,
    probabilities: np.ndarray,
    tried: np.ndarray,
    pool: tuple[np.ndarray, np.ndarray, np.ndarray],
    scale: np.ndarray,
    by_photo: np.ndarray,
) -> np.ndarray:
    """Find the best threshold of one label on each resample, [resamples]."""
    own = _take_evenly(np.unique(probabilities[targets > 0]), LABEL_CANDIDATES)
    candidates = np.union1d(tried, own)[::-1]
    # The pool was counted only at the thresholds in `tried`. For other candidates, use the counts
    # at the next lower threshold in `tried`.
    index = np.minimum(np.searchsorted(-tried, -candidates), len(tried) - 1)
    photos = np.arange(len(targets), dtype=np.int32)
    hits, total, _ = _count(targets, probabilities, photos, candidates, by_photo)
    f1 = f1_from_counts(hits + scale * pool[0][index], total + scale * pool[1][index])
    best = candidates[f1.argmax(axis=0)]
    # Place the threshold halfway between the best candidate and the label's next lower probability
    # (or 0). A new photo is then classified like the photo with the nearer probability.
    known = probabilities[is_known(targets)]
    rising = np.append(0, np.sort(known if len(known) else probabilities))
    return np.asarray((best + rising[np.searchsorted(rising[1:], best)]) / 2)


def _count(
    targets: np.ndarray,
    probabilities: np.ndarray,
    photos: np.ndarray,
    candidates: np.ndarray,
    by_photo: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count true, predicted plus actual, and actual positives, by candidate and resample."""
    order = np.argsort(-probabilities, kind="stable")
    order = order[is_known(targets[order])]
    predicted = np.searchsorted(-probabilities[order], -candidates, side="right")
    places = np.flatnonzero(targets[order] > 0)
    ends = np.append(np.searchsorted(places, predicted), len(places))
    hits = cumulative_weights(photos[order[places]], ends, by_photo)
    total = cumulative_weights(photos[order], predicted, by_photo) + hits[-1]
    return hits[:-1], total, hits[-1]


def _take_evenly(rising: np.ndarray, number: int) -> np.ndarray:
    """Return at most `number` values at evenly spaced positions, including the first and last."""
    if len(rising) <= number:
        return rising
    return np.asarray(rising[np.linspace(0, len(rising) - 1, number).round().astype(int)])
