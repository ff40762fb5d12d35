"""Average precision and area under the ROC curve (AUROC), which need no threshold.

Average precision and AUROC are undefined for a label without positives. Macro averages skip such
labels.
"""

import numpy as np
from scipy.sparse import csr_array

from phototag.dataset.targets import is_known
from phototag.metrics.ratios import ratio_or_nan, ratio_or_zero

BLOCK = 2**23  # number of float64 values that are processed at once, which limits the memory use
MAX_WORK = 2 * 10**9  # limit of number of entries times resamples; excess resamples are ignored
MIN_RESAMPLES = 200  # number of resamples that are always used, even if they exceed `MAX_WORK`


def mean_average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """Compute mAP, the mean average precision over the labels that have positives.

    The result is 0 if no label has positives.

    Args:
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels].
        scores: Logits or probabilities, of the same shape.
    """
    weights = np.ones((1, len(targets)))
    precision, _ = average_precision_and_auroc(targets, scores, weights)
    return float(np.nan_to_num(mean_over_labels(precision)[0]))


def ranking_scores(
    targets: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Compute mAP and AUROC.

    Args:
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels].
        scores: Logits or probabilities, of the same shape.
        weights: Bootstrap weights, float [resamples, num_photos].

    Returns:
        Metrics by name, float64 [resamples] each. `mAP_macro` and `AUROC_macro` are means over
        labels; `mAP_micro` and `AUROC_micro` are computed from one ranking of all entries. If there
        are millions of entries, only the first resamples are used: see `MAX_WORK`.
    """
    weights = weights[: 1 + max(MAX_WORK // max(targets.size, 1), MIN_RESAMPLES)]
    precision, area = average_precision_and_auroc(targets, scores, weights)
    photos = np.repeat(np.arange(len(targets), dtype=np.int32), targets.shape[1])
    pooled = _rank(targets.ravel(), scores.ravel(), np.ascontiguousarray(weights.T), photos)
    return {
        "mAP_macro": mean_over_labels(precision),
        "mAP_micro": pooled[0],
        "AUROC_macro": mean_over_labels(area),
        "AUROC_micro": pooled[1],
    }


def average_precision_and_auroc(
    targets: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute average precision (AP) and area under the ROC curve (AUROC) of each label.

    AP is the mean of the precision at the rank of each positive. Entries with equal scores have the
    same rank, as in scikit-learn.

    Args:
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels].
        scores: Logits or probabilities, of the same shape.
        weights: Bootstrap weights, float [resamples, num_photos].

    Returns:
        AP and AUROC, float64 [resamples, num_labels] each. Both are NaN for a label without
        positives. The AUROC is also NaN for a label without negatives.
    """
    photos, by_photo = np.arange(len(targets), dtype=np.int32), np.ascontiguousarray(weights.T)
    columns = [
        _rank(targets[:, label], scores[:, label], by_photo, photos)
        for label in range(targets.shape[1])
    ]
    precision, area = zip(*columns, strict=True)
    return np.stack(precision, axis=1), np.stack(area, axis=1)


def cumulative_weights(photos: np.ndarray, ends: np.ndarray, by_photo: np.ndarray) -> np.ndarray:
    """Sum the weights of the first n entries of a ranking, for each n in `ends`.

    Args:
        photos: Position of the photo of each entry, in ranking order, integers [num_entries].
        ends: Numbers of entries to sum, integers in 0..num_entries.
        by_photo: Transposed weights, float [num_photos, resamples].

    Returns:
        Sums of weights, float64 [len(ends), resamples].
    """
    edges = np.append(0, np.sort(ends))
    # Each row of this matrix sums the weights of the entries between two consecutive edges.
    shape = (len(ends), len(by_photo))
    pieces = csr_array((np.ones(edges[-1]), photos[: edges[-1]], edges), shape=shape)
    return np.asarray(_cumulative_sum(pieces @ by_photo)[np.searchsorted(edges, ends)])


def _rank(
    targets: np.ndarray, scores: np.ndarray, by_photo: np.ndarray, photos: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compute AP and AUROC of one ranking, each as float64 [resamples].

    Both metrics are sums over the positives. AP sums the precision at the rank of each positive.
    AUROC sums the number of negatives that rank lower, plus half the number of negatives with an
    equal score. Products with a sparse matrix sum the weights between two positives, so that a
    thousand resamples need only a few matrix products.

    Args:
        targets: Targets (1, 0 or `UNKNOWN`), [num_entries].
        scores: Logits or probabilities, [num_entries].
        by_photo: Transposed weights, float [num_photos, resamples].
        photos: Position of the photo of each entry, integers [num_entries].
    """
    order = np.argsort(-scores, kind="stable")
    order = order[is_known(targets[order])]
    falling, ranked = -scores[order], photos[order]
    places = np.flatnonzero(targets[order] > 0)
    # For each positive, count the entries, and then the positives, with a higher score (left) and
    # with a higher or equal score (right).
    above, reached = (np.searchsorted(falling, falling[places], side) for side in ("left", "right"))
    first, last = (
        np.searchsorted(falling[places], falling[places], side) for side in ("left", "right")
    )
    ends, number = np.concatenate([above, reached, [len(order)]]), len(places)
    found, step = [], max(BLOCK // len(ends), 1)
    for start in range(0, by_photo.shape[1], step):
        weights = np.ascontiguousarray(by_photo[:, start : start + step])
        sums = cumulative_weights(ranked, ends, weights)
        weight_above, weight_reached, total = sums[:number], sums[number:-1], sums[-1]
        own = weights[ranked[places]]
        hits = _cumulative_sum(own)
        hits_above, hits_reached, positives = hits[first], hits[last], hits[-1]
        precision = (own * ratio_or_zero(hits_reached, weight_reached)).sum(axis=0)
        negatives = total - positives
        misses = (weight_above - hits_above) + (weight_reached - hits_reached)
        area = (own * (negatives - misses / 2)).sum(axis=0)
        found.append(
            (ratio_or_nan(precision, positives), ratio_or_nan(area, positives * negatives))
        )
    precisions, areas = zip(*found, strict=True)
    return np.concatenate(precisions), np.concatenate(areas)


def _cumulative_sum(values: np.ndarray) -> np.ndarray:
    """Return the sums of the first 0, 1, 2, ... rows, one more row than the input has."""
    return np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])


def mean_over_labels(values: np.ndarray) -> np.ndarray:
    """Compute the mean of each resample over the labels that are not NaN, [resamples]."""
    finite = np.isfinite(values)
    return ratio_or_nan(np.where(finite, values, 0).sum(axis=1), finite.sum(axis=1))
