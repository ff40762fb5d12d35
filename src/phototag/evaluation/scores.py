"""Scores of multi-label predictions, and how sure they are, in NumPy.

Every function takes `weights`, how often each photo counts, [resamples, num_photos], and gives one
value a resample: one row of ones is the plain score, rows of a bootstrap (Efron, 1979) are its
distribution. A thousand resamples then cost a few matrix products. scikit-learn is the oracle in
the tests.

A label without positives has F1, precision and recall 0 and counts in their macro means, as
scikit-learn has it with zero_division=0; it has no AP and no AUROC, and is left out of theirs.
"""

import warnings

import numpy as np

from phototag.network.metrics import binary_cross_entropies

CHUNK = 64  # resamples whose pooled decisions are summed at once: bounds the memory
AVERAGES = ("micro", "macro", "weighted", "samples")


def draw_weights(num_photos: int, resamples: int, seed: int) -> np.ndarray:
    """Draw how often each photo counts in bootstrap resamples.

    Returns:
        float64 [1 + resamples, num_photos]. The first row is all ones, the photos as they are;
        each row sums to num_photos.
    """
    share = np.full(num_photos, 1 / max(num_photos, 1))
    drawn = np.random.default_rng(seed).multinomial(num_photos, share, size=resamples)
    return np.vstack([np.ones(num_photos), drawn])


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 2.5th and 97.5th percentiles over the resamples, which are the first axis.

    The first row is the photos as they are, and is no resample; a resample without a value (NaN)
    is left out.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no resample has a value
        low, high = np.nanpercentile(values[1:], [2.5, 97.5], axis=0)
    return low, high


def score_decisions(
    targets: np.ndarray, predicted: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Score 0/1 decisions.

    Args:
        targets: 0/1 [num_photos, num_labels].
        predicted: 0/1 of the same shape.
        weights: [resamples, num_photos].

    Returns:
        Each [resamples]: f1, precision and recall as `f1_micro` and so on for the averages micro,
        macro, weighted (by support) and samples; `subset_accuracy` (all labels of a photo right);
        `hamming_loss` (share of wrong decisions); `unlabelled_coverage` (share of the photos
        without labels of which none is predicted; NaN where there is no such photo).
    """
    truth, said = targets.astype(bool), predicted.astype(bool)
    right = (truth & said).astype(np.float64)
    counts = [weights @ part for part in (right, said.astype(float), truth.astype(float))]
    found: dict[str, np.ndarray] = {}
    pooled = [part.sum(axis=1) for part in counts]
    per_photo = [part.sum(axis=1, dtype=np.float64) for part in (right, said, truth)]
    support = _ratio(counts[2], pooled[2][:, None])
    for position, name in enumerate(("f1", "precision", "recall")):
        each = _rates(*counts)[position]
        found[f"{name}_micro"] = _rates(*pooled)[position]
        found[f"{name}_macro"] = each.mean(axis=1)
        found[f"{name}_weighted"] = (each * support).sum(axis=1)
        found[f"{name}_samples"] = _mean(_rates(*per_photo)[position], weights)
    found["subset_accuracy"] = _mean((truth == said).all(axis=1), weights)
    found["hamming_loss"] = _mean((truth != said).mean(axis=1), weights)
    empty = ~truth.any(axis=1)
    silent = weights @ (empty & ~said.any(axis=1)).astype(np.float64)
    found["unlabelled_coverage"] = _or_nan(silent, weights @ empty.astype(np.float64))
    return found


def score_rankings(
    targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Score probabilities without thresholds.

    Args:
        targets: 0/1 [num_photos, num_labels].
        probabilities: 0..1, of the same shape.
        weights: [resamples, num_photos].

    Returns:
        Each [resamples]: `mAP_macro` and `AUROC_macro`, means over the labels that have them;
        `mAP_micro` and `AUROC_micro`, of all decisions pooled.
    """
    precision, area = rank_labels(targets, probabilities, weights)
    photos = np.repeat(np.arange(len(targets)), targets.shape[1])
    pooled = [
        _rank(targets.ravel(), probabilities.ravel(), weights[start : start + CHUNK], photos)
        for start in range(0, len(weights), CHUNK)
    ]
    return {
        "mAP_macro": _mean_known(precision),
        "mAP_micro": np.concatenate([part[0] for part in pooled]),
        "AUROC_macro": _mean_known(area),
        "AUROC_micro": np.concatenate([part[1] for part in pooled]),
    }


def rank_labels(
    targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute average precision and area under the ROC curve of each label.

    AP is the sum over thresholds of precision times recall gained; photos of equal probability
    enter together, as in scikit-learn.

    Returns:
        float64 [resamples, num_labels] each; NaN where a label has no positives, or, for the area,
        no negatives.
    """
    photos = np.arange(len(targets))
    columns = [
        _rank(targets[:, label], probabilities[:, label], weights, photos)
        for label in range(targets.shape[1])
    ]
    precision, area = zip(*columns, strict=True)
    return np.stack(precision, axis=1), np.stack(area, axis=1)


def rate_labels(
    targets: np.ndarray, predicted: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute F1, precision and recall of each label, float64 [resamples, num_labels] each."""
    truth, said = targets.astype(np.float64), predicted.astype(np.float64)
    return _rates(weights @ (truth * said), weights @ said, weights @ truth)


def score_losses(targets: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the mean binary cross entropy over photos and labels, in nats, [resamples]."""
    loss = binary_cross_entropies(targets, logits)
    return _mean(loss.mean(axis=1), weights)


def _rank(
    targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, photos: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rank decisions by probability; `photos` says whose each is.

    Both sums need only the places of positives: AP their precision, the area how many negatives
    rank below them (and half of those beside them).
    """
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    true = targets[order] > 0
    first = np.searchsorted(-ranked, -ranked[true], side="left")
    last = np.searchsorted(-ranked, -ranked[true], side="right") - 1
    # Positives of equal probability stand together, and all count up to the last of them.
    same = np.searchsorted(-ranked[true], -ranked[true], side="right") - 1
    all_ = np.cumsum(weights[:, photos[order]], axis=1)
    own = weights[:, photos[order[true]]]
    found = np.cumsum(own, axis=1)
    above = np.where(first > 0, all_[:, first - 1], 0)
    reached, hits, total = all_[:, last], found[:, same], all_[:, -1]
    precision = (own * _ratio(hits, reached)).sum(axis=1)
    positives = own.sum(axis=1)
    # Of the positives, those beside and above: the first of equals knows what was above all.
    earlier = np.searchsorted(-ranked[true], -ranked[true], side="left")
    hits_above = np.where(earlier > 0, found[:, earlier - 1], 0)
    misses_above, misses_reached = above - hits_above, reached - hits
    negatives = total - positives
    below = negatives[:, None] - (misses_above + misses_reached) / 2
    area = (own * below).sum(axis=1)
    return _or_nan(precision, positives), _or_nan(area, positives * negatives)


def _rates(
    right: np.ndarray, predicted: np.ndarray, positives: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return F1 = 2 tp / (2 tp + fp + fn), precision and recall; 0 where nothing is there."""
    return (
        _ratio(2 * right, predicted + positives),
        _ratio(right, predicted),
        _ratio(right, positives),
    )


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _or_nan(weights @ values.astype(np.float64), weights.sum(axis=1))


def _mean_known(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    return _or_nan(np.where(known, values, 0).sum(axis=1), known.sum(axis=1))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.asarray(numerator / np.where(denominator > 0, denominator, 1), np.float64)


def _or_nan(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.where(denominator > 0, _ratio(numerator, denominator), np.nan)
