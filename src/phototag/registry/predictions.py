"""Comparison of two models by the predictions that `evaluate` wrote for each of them."""

import io

import numpy as np
import pandas as pd
from scipy.special import logit

from phototag.dataset.targets import UNKNOWN
from phototag.metrics.bootstrap import bootstrap_weights, effective_groups
from phototag.metrics.classification import classification_scores
from phototag.metrics.differences import list_differences
from phototag.metrics.losses import weighted_cross_entropy
from phototag.metrics.ranking import ranking_scores
from phototag.metrics.selection import CROSS_VALIDATION
from phototag.pages.escaping import escape_spreadsheet_cell

PREDICTIONS, SPLITS = "reports/evaluate/predictions.csv", "data/splits.csv"
METRICS = ("f1_micro", "f1_macro", "mAP_macro", "loss")
# Probabilities in predictions.csv are rounded to 8 digits. Values below EPSILON may become 0.
EPSILON = 1e-8
TAIL = 0.025  # probability on each side of a 95% interval


def parse_predictions(predictions: bytes, splits: bytes) -> pd.DataFrame:
    """Return the predictions for the evaluated photos, with each photo's group.

    The value of the column `split` is what the model was evaluated on: `test` or, if there is no
    test split, `val` or `cross-validation`.

    Args:
        predictions: Content of predictions.csv.
        splits: Content of splits.csv.
    """
    names = dict.fromkeys(("image", "split", "label", "target", "group"), str)
    rows, assignment = (
        pd.read_csv(io.BytesIO(content), keep_default_na=False, dtype=names)
        for content in (predictions, splits)
    )
    if "group" not in assignment:
        assignment["group"] = assignment["image"]
    assignment["image"] = assignment["image"].map(escape_spreadsheet_cell)
    found = set(rows["split"])
    evaluated_on = CROSS_VALIDATION if "train" in found else "val"
    if "test" in found:
        evaluated_on, rows = "test", rows[rows["split"] == "test"]
    rows = rows.assign(split=evaluated_on).merge(assignment[["image", "group"]], on="image")
    # Unknown targets are empty cells in predictions.csv.
    return rows.assign(target=pd.to_numeric(rows["target"]).fillna(UNKNOWN).astype(int))


def compare_predictions(
    new: pd.DataFrame, old: pd.DataFrame, resamples: int, seed: int
) -> pd.DataFrame:
    """Compare the predictions of two models with a paired bootstrap over groups of photos.

    Photos and labels that are in only one of the tables, and photos without a known target, are
    ignored. Both models are scored on the targets of the new model's table.

    Args:
        new: Table of the new model with the columns image, label, target (1, 0 or `UNKNOWN`),
            probability, predicted and group. The rows of each photo must be adjacent, with the
            labels in the same order for all photos.
        old: Table of the old model with the same columns. Its rows may be in any order.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the resamples.

    Returns:
        Table with the columns metric, new, old, difference, low and high, one row per metric; empty
        if no photo remains. Its attribute `attrs` has the numbers of `photos` and `labels`.
    """
    new = new[new["label"].isin(set(old["label"]))]
    num_labels = new["label"].nunique()
    known = new.loc[new["target"] != UNKNOWN, "image"]
    new = new[new["image"].isin(set(old["image"]) & set(known))]
    # Sort the rows of both tables in the same order, and use the targets of the new model.
    shared = new[["image", "label", "target"]]
    old = shared.merge(old.drop(columns="target"), on=["image", "label"])
    groups = list(map(str, new["group"][:: num_labels or 1]))
    rows = []
    if groups:
        weights = bootstrap_weights(len(groups), resamples, seed, groups)
        scored, before = (_score(table, num_labels, weights) for table in (new, old))
        rows = list_differences(scored, before, METRICS, effective_groups(groups), TAIL)
    table = pd.DataFrame(rows, columns=["metric", "new", "old", "difference", "low", "high"])
    table.attrs |= {"photos": len(groups), "labels": num_labels}
    return table


def _score(table: pd.DataFrame, num_labels: int, weights: np.ndarray) -> dict[str, np.ndarray]:
    targets, probabilities, predicted = (
        table[column].to_numpy().reshape(-1, num_labels)
        for column in ("target", "probability", "predicted")
    )
    logits = restore_logits(probabilities.astype(float))
    return compute_scores(targets, predicted, probabilities, logits, weights)


def restore_logits(probabilities: np.ndarray) -> np.ndarray:
    """Return the logits of rounded probabilities."""
    return np.asarray(logit(np.clip(probabilities, EPSILON, 1 - EPSILON)))


def compute_scores(
    targets: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    logits: np.ndarray,
    weights: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return each metric on all photos and then on each resample, float64 [1 + resamples]."""
    return (
        classification_scores(targets, predicted, weights)
        | ranking_scores(targets, probabilities, weights)
        | {"loss": weighted_cross_entropy(targets, logits, weights)}
    )
