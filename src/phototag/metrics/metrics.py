"""What training watches, in NumPy; scikit-learn is the oracle in the tests.

`scores` has all metrics of an evaluation, with their intervals. Targets are 1, 0 or `UNKNOWN`, and
what is not known counts for nothing: each metric is that of the known entries alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from phototag.dataset.targets import is_known


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Map logits to probabilities, float64 in 0..1, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))


def f1_score(targets: np.ndarray, predicted: np.ndarray, average: str) -> float:
    """Compute F1 = 2 tp / (2 tp + fp + fn); where nothing is true or predicted it is 0.

    Args:
        targets: 1, 0 or `UNKNOWN`, [num_images, num_labels].
        predicted: 0/1 of the same shape.
        average: `micro` pools all decisions, `macro` is the mean over labels.

    Raises:
        ValueError: An unknown average.
    """
    if average not in ("micro", "macro"):
        raise ValueError(f"average must be micro or macro, not {average!r}")
    axis = None if average == "micro" else 0
    truth, said = targets > 0, predicted.astype(bool) & is_known(targets)
    true_positives = (truth & said).sum(axis=axis)
    somewhere = truth.sum(axis=axis) + said.sum(axis=axis)
    return float(np.mean(2 * true_positives / np.maximum(somewhere, 1)))


def binary_cross_entropies(targets: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Compute the binary cross entropy of every decision, in nats, float64 of the inputs' shape.

    Stable for any logit x and target y: max(x, 0) - x y + log(1 + exp(-|x|)); 0 where the target
    is not known.
    """
    logits = logits.astype(np.float64)
    found = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
    return np.where(is_known(targets), found, 0)


def binary_cross_entropy(targets: np.ndarray, logits: np.ndarray) -> float:
    """Compute the mean binary cross entropy over photos and labels, in nats.

    It is NaN where nothing is known.
    """
    known = np.count_nonzero(is_known(targets))
    return float(binary_cross_entropies(targets, logits).sum() / known) if known else float("nan")


def mean_average_precision(targets: np.ndarray, logits: np.ndarray) -> float:
    """Compute the mean over labels of their average precision, 0..1.

    AP is the mean, over a label's positives, of the share of positives among what ranks as high or
    higher. A label without positives has none and is left out; without any positives it is 0.

    Args:
        targets: 1, 0 or `UNKNOWN`, [num_images, num_labels].
        logits: float [num_images, num_labels], or anything that ranks alike.
    """
    found = []
    for label in np.flatnonzero((targets > 0).any(axis=0)):
        order = np.argsort(-logits[:, label], kind="stable")
        order = order[is_known(targets[order, label])]
        true, ranked = targets[order, label] > 0, -logits[order, label]
        # Photos of equal logit enter together.
        reached = np.searchsorted(ranked, ranked[true], side="right")
        found.append(np.mean(np.cumsum(true)[reached - 1] / reached))
    return float(np.mean(found)) if found else 0.0


def kept_epoch(history: Sequence[Mapping[Any, Any]]) -> Mapping[Any, Any]:
    """Return the record of the epoch whose weights are kept.

    Each record names in `kept` the best epoch up to it. Those of older trainings do not, which
    went by the val loss.

    Args:
        history: One record an epoch.
    """
    if "kept" not in history[-1]:
        return min(history, key=lambda record: record["val_loss"])
    return next(record for record in history if record["epoch"] == history[-1]["kept"])
