"""Average precision and area under the ROC curve (AUROC), which need no threshold.

Average precision and AUROC are undefined for a label without positives. Macro averages skip such
labels.
"""

import numpy as np
from scipy.sparse import csr_array

from phototag.dataset.targets import is_known
from phototag.metrics.ratios import ratio_or_nan, ratio_or_zero

BLOCK = 2**23  # number of float64 values processed at once; limits the memory use
MAX_WORK = 2 * 10**9  # further resamples are ignored if entries * resamples exceeds this
Ranking = tuple[np.ndarray, np.ndarray]  # AP and AUROC, float64 [resamples, num_labels] each
MIN_RESAMPLES = 200  # use at least this many resamples, even if `MAX_WORK` is exceeded


def mean_average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """Compute mAP: the mean of the average precision (AP) of all labels that have positives.

    The result is 0 if no label has positives.
    """
    weights = np.ones((1, len(targets)))
    precision, _ = average_precision_and_auroc(targets, scores, weights)
    return float(np.nan_to_num(mean_over_labels(precision)[0]))


def ranking_scores(
    targets: np.ndarray,
    scores: np.ndarray,
    weights: np.ndarray,
    by_label: Ranking | None = None,
) -> dict[str, np.ndarray]:
    """Compute mAP and AUROC.

    `by_label` is the result of `average_precision_and_auroc`. Omit it to compute it here.

    Returns:
        Metrics by name, float64 [resamples] each. `mAP_macro` and `AUROC_macro` are means over
        labels; `mAP_micro` and `AUROC_micro` are computed from one ranking of all entries. If there
        are millions of entries, only some of the resamples are used: see `MAX_WORK`.
    """
    precision, area = by_label or average_precision_and_auroc(targets, scores, weights)
    weights = weights[: len(precision)]
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

    AP is the precision at the rank of a positive, averaged over all positives. Entries with equal
    scores have the same rank, as in scikit-learn. If there are millions of entries, only some of
    the resamples are used: see `MAX_WORK`.

    Returns:
        AP and AUROC, float64 [resamples, num_labels] each. Both are NaN for a label without
        positives. The AUROC is also NaN for a label without negatives.
    """
    weights = weights[: 1 + max(MAX_WORK // max(targets.size, 1), MIN_RESAMPLES)]
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
        photos: Position of each entry's photo, integers [num_entries], in the order of the ranking.
        ends: Values of n, integers in 0..num_entries.
        by_photo: Bootstrap weights, transposed, float [num_photos, resamples].

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
    """Compute the AP and AUROC of one ranking: two arrays, float64 [resamples].

    Both metrics add one value per positive, and then normalize the sum. For AP, this value is the
    precision at the rank of the positive. For AUROC, it is the number of negatives with a lower
    score, plus half the number of negatives with an equal score. The weights between consecutive
    positives are summed by sparse matrix products: a few products suffice for 1000 resamples.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[is_known(targets[order])]
    falling, ranked = -scores[order], photos[order]
    places = np.flatnonzero(targets[order] > 0)
    # For each positive, count the higher scores ("left") and the higher or equal scores ("right"):
    # first among all entries, then among the positives only.
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
    """Return the cumulative sums of the rows, preceded by a row of zeros."""
    return np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])


def mean_over_labels(values: np.ndarray) -> np.ndarray:
    """Compute the mean over the labels for each resample, [resamples]; NaN values are ignored."""
    finite = np.isfinite(values)
    return ratio_or_nan(np.where(finite, values, 0).sum(axis=1), finite.sum(axis=1))
