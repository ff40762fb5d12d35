"""Scores of a trained model on held-out photos, as tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve

from phototag import metrics
from phototag.dataset import Dataset

CURVE_POINTS = 201  # of the precision-recall curve: smooth to the eye, small in git


def judged_split(datasets: Mapping[str, Dataset]) -> str:
    """Return the split that the scores are of: test, or val where there is no test split."""
    return "test" if len(datasets["test"]) else "val"


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Map logits to probabilities, float64 in 0..1, without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))


def score(targets: np.ndarray, logits: np.ndarray, thresholds: np.ndarray) -> dict[str, float]:
    """Compute the headline metrics.

    Args:
        targets: 0/1 [num_images, num_labels].
        logits: float [num_images, num_labels].
        thresholds: 0..1 [num_labels].

    Returns:
        loss (mean BCE, nats), f1_micro, f1_macro and f1_samples at the thresholds, mAP (the mean
        over labels that have positives), f1_micro_at_0.5 and f1_macro_at_0.5.
    """
    probabilities = sigmoid(logits)
    tuned, half = probabilities >= thresholds, probabilities >= 0.5
    average_precision = metrics.average_precision(targets, probabilities)
    return {
        "loss": metrics.binary_cross_entropy(targets, logits),
        "f1_micro": metrics.f1_score(targets, tuned, "micro"),
        "f1_macro": metrics.f1_score(targets, tuned, "macro"),
        "f1_samples": metrics.f1_score(targets, tuned, "samples"),
        "mAP": float(np.nanmean(average_precision)) if targets.any() else 0.0,
        "f1_micro_at_0.5": metrics.f1_score(targets, half, "micro"),
        "f1_macro_at_0.5": metrics.f1_score(targets, half, "macro"),
    }


def tabulate_labels(
    labels: Sequence[str], targets: np.ndarray, logits: np.ndarray, thresholds: np.ndarray
) -> pd.DataFrame:
    """Tabulate each label: support, threshold, precision, recall, F1 (also at 0.5) and AP.

    AP is empty for a label without positives; precision is 0 where nothing is predicted.
    """
    probabilities = sigmoid(logits)
    tuned, half = probabilities >= thresholds, probabilities >= 0.5
    precision, recall = metrics.precision_recall(targets, tuned)
    precision_half, recall_half = metrics.precision_recall(targets, half)
    return pd.DataFrame(
        {
            "label": list(labels),
            "support": targets.sum(axis=0, dtype=np.int64),
            "threshold": thresholds,
            "precision": precision,
            "recall": recall,
            "f1": metrics.f1_per_label(targets, tuned),
            "average_precision": metrics.average_precision(targets, probabilities),
            "precision_at_0.5": precision_half,
            "recall_at_0.5": recall_half,
            "f1_at_0.5": metrics.f1_per_label(targets, half),
        }
    )


def tabulate_predictions(
    datasets: Mapping[str, Dataset], logits: Mapping[str, np.ndarray], thresholds: np.ndarray
) -> pd.DataFrame:
    """Tabulate every decision, one row a photo and label.

    Returns:
        Columns image, split, label, target (0/1), probability (0..1), predicted (0/1).
    """
    tables = []
    for split, values in logits.items():
        dataset, probabilities = datasets[split], sigmoid(values)
        num_labels = len(dataset.labels)
        columns: dict[str, Any] = {
            "image": np.repeat(dataset.files, num_labels),
            "split": split,
            "label": np.tile(dataset.labels, len(dataset)),
            "target": dataset.targets.ravel(),
            "probability": probabilities.ravel(),
            "predicted": (probabilities >= thresholds).astype(np.uint8).ravel(),
        }
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def tabulate_curve(targets: np.ndarray, logits: np.ndarray) -> pd.DataFrame:
    """Tabulate the precision-recall curve of all decisions pooled (micro).

    Returns:
        Columns recall, precision and threshold, at most `CURVE_POINTS` rows by rising recall.
    """
    precision, recall, threshold = precision_recall_curve(targets.ravel(), sigmoid(logits).ravel())
    # scikit-learn ends with the point (recall 0, precision 1), which has no threshold.
    table = pd.DataFrame(
        {"recall": recall[:-1], "precision": precision[:-1], "threshold": threshold}
    )[::-1]
    chosen = np.unique(np.linspace(0, len(table) - 1, CURVE_POINTS).round().astype(int))
    return table.iloc[chosen].reset_index(drop=True)
