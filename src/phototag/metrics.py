"""Multi-label metrics in NumPy; scikit-learn is their oracle in the tests."""

import numpy as np


def f1_score(targets: np.ndarray, predicted: np.ndarray, average: str) -> float:
    """Compute F1 = 2 tp / (2 tp + fp + fn); where nothing is true or predicted it is 0.

    Args:
        targets: 0/1 [num_images, num_labels].
        predicted: 0/1 of the same shape.
        average: `micro` pools all decisions, `macro` is the mean over labels, `samples` the mean
            over photos (a photo without label and without prediction counts 0, as in
            scikit-learn with zero_division=0).

    Raises:
        ValueError: An unknown average.
    """
    match average:
        case "micro":
            return float(_f1(targets, predicted, None))
        case "macro":
            return float(np.mean(_f1(targets, predicted, 0)))
        case "samples":
            return float(np.mean(_f1(targets, predicted, 1)))
        case _:
            raise ValueError(f"average must be micro, macro or samples, not {average!r}")


def f1_per_label(targets: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Compute F1 of each label, float64 [num_labels]."""
    return _f1(targets, predicted, 0)


def _f1(targets: np.ndarray, predicted: np.ndarray, axis: int | None) -> np.ndarray:
    targets, predicted = targets.astype(bool), predicted.astype(bool)
    true_positives = (targets & predicted).sum(axis=axis)
    return _ratio(2 * true_positives, targets.sum(axis=axis) + predicted.sum(axis=axis))


def precision_recall(targets: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute precision and recall of each label; 0 where nothing is predicted, or true.

    Args:
        targets: 0/1 [num_images, num_labels].
        predicted: 0/1 of the same shape.

    Returns:
        Precision and recall, float64 [num_labels] each.
    """
    targets, predicted = targets.astype(bool), predicted.astype(bool)
    true_positives = (targets & predicted).sum(axis=0)
    return (
        _ratio(true_positives, predicted.sum(axis=0)),
        _ratio(true_positives, targets.sum(axis=0)),
    )


def average_precision(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Compute each label's average precision: sum over thresholds of precision x recall gained.

    Photos of equal probability enter together, as in scikit-learn.

    Args:
        targets: 0/1 [num_images, num_labels].
        probabilities: 0..1, of the same shape.

    Returns:
        float64 [num_labels]; NaN for a label without positives, which has no recall.
    """
    return np.array(
        [
            _average_precision(targets[:, label].astype(bool), probabilities[:, label])
            for label in range(targets.shape[1])
        ]
    )


def _average_precision(targets: np.ndarray, probabilities: np.ndarray) -> float:
    if not targets.any():
        return float("nan")
    order = np.argsort(-probabilities, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(probabilities[order])), len(order) - 1)
    true_positives = np.cumsum(targets[order])[last_of_ties]
    precision = true_positives / (last_of_ties + 1)
    gained = np.diff(true_positives, prepend=0) / targets.sum()
    return float(gained @ precision)


def binary_cross_entropy(targets: np.ndarray, logits: np.ndarray) -> float:
    """Compute the mean binary cross entropy over photos and labels, in nats.

    Stable for any logit x and target y: max(x, 0) - x y + log(1 + exp(-|x|)).
    """
    logits = logits.astype(np.float64)
    loss = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
    return float(loss.mean())


def prior_loss(targets: np.ndarray) -> float:
    """Compute the cross entropy, in nats, of always predicting each label's frequency in `targets`.

    A network whose loss is near it has learnt nothing.
    """
    prior = targets.mean(axis=0, dtype=np.float64).clip(1e-12, 1 - 1e-12)
    return float(-(prior * np.log(prior) + (1 - prior) * np.log1p(-prior)).mean())


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.asarray(numerator / np.maximum(denominator, 1), np.float64)
