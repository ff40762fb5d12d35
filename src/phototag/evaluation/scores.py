"""Scores of multi-label predictions, and how sure they are, in NumPy.

Every function takes `weights`, how often each photo counts, [resamples, num_photos], and gives one
value a resample: one row of ones is the plain score, rows of a bootstrap (Efron, 1979) are its
distribution. A thousand resamples then cost a few matrix products. scikit-learn is the oracle in
the tests.

Targets are 1, 0 or `UNKNOWN`, and what is not known counts for nothing: each score is that of the
known entries alone. A label without positives has F1, precision and recall 0 and counts in their
macro means, as scikit-learn has it with zero_division=0; it has no AP and no AUROC, and is left out
of theirs.
"""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import csr_array

from phototag.dataset.targets import is_known
from phototag.metrics.metrics import binary_cross_entropies

BLOCK = 2**22  # values of a table that are worked on at once: bounds the memory
WORK = 2 * 10**9  # decisions times resamples that rankings go through ...
FEWEST = 200  # ... in at least so many resamples
EXACT = 2**24  # up to here float32 holds every whole number
AVERAGES = ("micro", "macro", "weighted", "samples")


def draw_weights(
    num_photos: int, resamples: int, seed: int, groups: Sequence[str] = ()
) -> np.ndarray:
    """Draw how often each photo counts in bootstrap resamples.

    Photos of one group (an album, copies of one photo) hang together, so whole groups are drawn
    (the cluster bootstrap; Davison and Hinkley, 1997, 3.8): single photos would promise more
    certainty than there is.

    Args:
        num_photos: How many there are.
        resamples: How often to draw.
        seed: Of the draws.
        groups: Each photo's group, [num_photos]; none, where every photo stands for itself.

    Returns:
        float64 [1 + resamples, num_photos]. The first row is all ones, the photos as they are; in
        each other row as many groups count as there are. From a single group nothing can be drawn:
        then there is only the first row.
    """
    names = np.asarray(groups if len(groups) else np.arange(num_photos))
    _, first, group = np.unique(names, return_index=True, return_inverse=True)
    # Numbered by their first photo, so that single photos are groups in their own order.
    group = np.argsort(np.argsort(first))[group]
    number = len(first)
    if number < 2:
        return np.ones((1, num_photos))
    drawn = np.random.default_rng(seed).multinomial(
        number, np.full(number, 1 / number), size=resamples
    )
    return np.vstack([np.ones(num_photos), drawn[:, group]])


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 2.5th and 97.5th percentiles over the resamples, which are the first axis.

    The first row is the photos as they are, and is no resample; a resample without a value (NaN)
    is left out. Both are NaN where no resample has a value.
    """
    if len(values) < 2:
        nothing = np.full(values.shape[1:], np.nan)
        return nothing, nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no resample has a value
        low, high = np.nanpercentile(values[1:], [2.5, 97.5], axis=0)
    return low, high


def score_decisions(
    targets: np.ndarray, predicted: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Score 0/1 decisions.

    Args:
        targets: 1, 0 or `UNKNOWN`, [num_photos, num_labels].
        predicted: 0/1 of the same shape.
        weights: [resamples, num_photos].

    Returns:
        Each [resamples]: f1, precision and recall as `f1_micro` and so on for the averages micro,
        macro, weighted (by support) and samples; `subset_accuracy` (all labels of a photo right);
        `hamming_loss` (share of wrong decisions); `unlabelled_coverage` (share of the photos that
        are known to carry no label of which none is predicted; NaN where there is no such photo).
        A photo of which nothing is known is no sample.
    """
    known = is_known(targets)
    truth, said = targets > 0, predicted.astype(bool) & known
    right = truth & said
    counts = [_count(weights, part) for part in (right, said, truth)]
    found: dict[str, np.ndarray] = {}
    pooled = [part.sum(axis=1) for part in counts]
    per_photo = [part.sum(axis=1, dtype=np.float64) for part in (right, said, truth)]
    support = _ratio(counts[2], pooled[2][:, None])
    some = np.asarray(known.any(axis=1))
    for position, name in enumerate(("f1", "precision", "recall")):
        each = _rates(*counts)[position]
        found[f"{name}_micro"] = _rates(*pooled)[position]
        found[f"{name}_macro"] = each.mean(axis=1)
        found[f"{name}_weighted"] = (each * support).sum(axis=1)
        found[f"{name}_samples"] = _mean(_rates(*per_photo)[position], weights, some)
    found["subset_accuracy"] = _mean((truth == said).all(axis=1) & some, weights, some)
    found["hamming_loss"] = _mean((truth != said).mean(axis=1), weights, known.mean(axis=1))
    empty = (targets == 0).all(axis=1)
    silent = weights @ (empty & ~said.any(axis=1)).astype(np.float64)
    found["unlabelled_coverage"] = _or_nan(silent, weights @ empty.astype(np.float64))
    return found


def score_pooled(
    targets: np.ndarray, predicted: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Score 0/1 decisions, all labels pooled: `f1_micro`, `precision_micro` and `recall_micro`."""
    truth, said = targets > 0, predicted.astype(bool) & is_known(targets)
    per_photo = [part.sum(axis=1, dtype=np.float64) for part in (truth & said, said, truth)]
    rates = _rates(*(weights @ part for part in per_photo))
    return dict(zip(("f1_micro", "precision_micro", "recall_micro"), rates, strict=True))


def score_rankings(
    targets: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Score probabilities without thresholds.

    Args:
        targets: 1, 0 or `UNKNOWN`, [num_photos, num_labels].
        probabilities: 0..1, of the same shape.
        weights: [resamples, num_photos].

    Returns:
        Each [resamples]: `mAP_macro` and `AUROC_macro`, means over the labels that have them;
        `mAP_micro` and `AUROC_micro`, of all decisions pooled. Of millions of decisions only the
        first resamples, see `WORK`.
    """
    weights = weights[: 1 + max(WORK // max(targets.size, 1), FEWEST)]
    precision, area = rank_labels(targets, probabilities, weights)
    photos = np.repeat(np.arange(len(targets), dtype=np.int32), targets.shape[1])
    pooled = _rank(targets.ravel(), probabilities.ravel(), _by_photo(weights), photos)
    return {
        "mAP_macro": _mean_finite(precision),
        "mAP_micro": pooled[0],
        "AUROC_macro": _mean_finite(area),
        "AUROC_micro": pooled[1],
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
    photos, by_photo = np.arange(len(targets), dtype=np.int32), _by_photo(weights)
    columns = [
        _rank(targets[:, label], probabilities[:, label], by_photo, photos)
        for label in range(targets.shape[1])
    ]
    precision, area = zip(*columns, strict=True)
    return np.stack(precision, axis=1), np.stack(area, axis=1)


def rate_labels(
    targets: np.ndarray, predicted: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute F1, precision and recall of each label, float64 [resamples, num_labels] each."""
    truth, said = targets > 0, predicted.astype(bool) & is_known(targets)
    right, predictions, positives = (_count(weights, part) for part in (truth & said, said, truth))
    return _rates(right, predictions, positives)


def score_losses(targets: np.ndarray, logits: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Compute the mean binary cross entropy over photos and labels, in nats, [resamples]."""
    rows = max(BLOCK // max(targets.shape[1], 1), 1)
    parts = [
        binary_cross_entropies(targets[i : i + rows], logits[i : i + rows]).mean(axis=1)
        for i in range(0, len(targets), rows)
    ]
    shares = is_known(targets).mean(axis=1)
    return _mean(np.concatenate([*parts, np.zeros(0)]), weights, shares)


def _count(weights: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    """Sum the weights of the photos for which a decision is true, [resamples, num_labels]."""
    # Whole numbers: float32 gives the same sums in half the time.
    kind = np.float32 if weights.sum(axis=1).max(initial=0) < EXACT else np.float64
    return np.asarray(weights.astype(kind) @ decisions.astype(kind), np.float64)


def _by_photo(weights: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(weights.T)


def _rank(
    targets: np.ndarray, probabilities: np.ndarray, by_photo: np.ndarray, photos: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rank decisions by probability, and compute AP and area, [resamples] each.

    Both sums need only the places of positives: AP their precision, the area how many negatives
    rank below them (and half of those beside them). What ranks between two such places is summed
    at once, by a product with a sparse matrix.

    Args:
        targets: 1, 0 or `UNKNOWN`, [num_decisions].
        probabilities: 0..1 [num_decisions].
        by_photo: The weights, [num_photos, resamples].
        photos: Whose each decision is, [num_decisions].
    """
    order = np.argsort(-probabilities, kind="stable")
    order = order[is_known(targets[order])]
    falling, ranked = -probabilities[order], photos[order]
    places = np.flatnonzero(targets[order] > 0)
    # Decisions of equal probability enter together: those above, and up to the last beside it.
    starts, ends = (np.searchsorted(falling, falling[places], side) for side in ("left", "right"))
    first, last = (
        np.searchsorted(falling[places], falling[places], side) for side in ("left", "right")
    )
    asked, number = np.concatenate([starts, ends, [len(order)]]), len(places)
    found = []
    sums, place = _cut(ranked, asked, len(by_photo))
    for weights in _split_columns(by_photo, max(sums.shape[0], number, 1)):
        passed = _running(sums @ weights)[place]
        above, reached, total = passed[:number], passed[number:-1], passed[-1]
        own = weights[ranked[places]]
        hits = _running(own)
        hits_above, hits_reached, positives = hits[first], hits[last], hits[-1]
        precision = (own * _ratio(hits_reached, reached)).sum(axis=0)
        negatives = total - positives
        below = negatives - ((above - hits_above) + (reached - hits_reached)) / 2
        area = (own * below).sum(axis=0)
        found.append((_or_nan(precision, positives), _or_nan(area, positives * negatives)))
    precisions, areas = zip(*found, strict=True)
    return np.concatenate(precisions), np.concatenate(areas)


def sum_first(photos: np.ndarray, ends: np.ndarray, by_photo: np.ndarray) -> np.ndarray:
    """Sum the weights of the first photos of a ranking, for several ends at once.

    Args:
        photos: Whose decisions stand one after the other, integers [num_decisions].
        ends: How many of them to sum, each 0 .. num_decisions.
        by_photo: The weights, [num_photos, resamples].

    Returns:
        float64 [num_ends, resamples].
    """
    sums, place = _cut(photos, ends, len(by_photo))
    return np.asarray(_running(sums @ by_photo)[place])


def _cut(photos: np.ndarray, ends: np.ndarray, num_photos: int) -> tuple[csr_array, np.ndarray]:
    """Cut a ranking at its ends.

    Returns:
        The matrix that sums the weights of each piece's photos, [num_pieces, num_photos], and how
        many pieces stand before each end.
    """
    edges = np.unique(np.append(ends, 0))
    data, shape = np.ones(edges[-1]), (len(edges) - 1, num_photos)
    return csr_array((data, photos[: edges[-1]], edges), shape=shape), np.searchsorted(edges, ends)


def _split_columns(values: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """Yield some columns at a time, so many that as many with `rows` rows fit into `BLOCK`."""
    step = max(BLOCK // rows, 1)
    for start in range(0, values.shape[1], step):
        yield np.ascontiguousarray(values[:, start : start + step])


def _running(values: np.ndarray) -> np.ndarray:
    """Return the sums of the first 0, 1, 2 ... rows."""
    return np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])


def _rates(
    right: np.ndarray, predicted: np.ndarray, positives: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return F1 = 2 tp / (2 tp + fp + fn), precision and recall; 0 where nothing is there."""
    return (
        _ratio(2 * right, predicted + positives),
        _ratio(right, predicted),
        _ratio(right, positives),
    )


def _mean(values: np.ndarray, weights: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Divide by how much of each photo there is: 1, less of one that is known in part."""
    return _or_nan(weights @ values.astype(np.float64), weights @ shares.astype(np.float64))


def _mean_finite(values: np.ndarray) -> np.ndarray:
    finite = np.isfinite(values)
    return _or_nan(np.where(finite, values, 0).sum(axis=1), finite.sum(axis=1))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.asarray(numerator / np.where(denominator > 0, denominator, 1), np.float64)


def _or_nan(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.where(denominator > 0, _ratio(numerator, denominator), np.nan)
