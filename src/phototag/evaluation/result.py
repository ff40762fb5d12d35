"""Evaluation of a model, with thresholds chosen on val and metrics computed on test."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from phototag.dataset.dataset import Dataset, join_datasets
from phototag.evaluation.calibration import fit_temperature
from phototag.evaluation.params import F1, EvaluateParams
from phototag.evaluation.slices import slice_photos, tabulate_slices
from phototag.evaluation.tables import (
    tabulate_cooccurrence,
    tabulate_curve,
    tabulate_label_errors,
    tabulate_labels,
    tabulate_predictions,
    tabulate_scores,
)
from phototag.evaluation.thresholds import Thresholds, choose_thresholds
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.losses import sigmoid
from phototag.metrics.selection import VAL_PREFIX

# Names in metrics.json, each with `predictor` and `metric` of its row in the table `scores`.
HEADLINE = {
    "loss": ("model", "loss"),
    "f1_micro": ("model", "f1_micro"),
    "f1_macro": ("model", "f1_macro"),
    "mAP": ("model", "mAP_macro"),
}


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation.

    Attributes:
        datasets: Dictionary from split name to dataset.
        logits: Dictionary from split name (val, and test if it exists) to logits, float
            [num_photos, num_labels]. The logits are divided by `applied_temperature`.
        split: Name of the evaluated split: test, or val if there is no test split.
        temperature: Temperature that minimizes the loss on the photos on which the thresholds were
            chosen.
        applied_temperature: Same as `temperature` if `evaluate.calibrate` is true, otherwise 1.
        thresholds: Decision thresholds of the labels.
        tables: Tables by file name; the functions `tabulate_...` document the columns.
    """

    datasets: Mapping[str, Dataset]
    logits: Mapping[str, np.ndarray]
    split: str
    temperature: float
    applied_temperature: float
    thresholds: Thresholds
    tables: Mapping[str, pd.DataFrame]


def evaluate(
    datasets: Mapping[str, Dataset],
    logits: Mapping[str, np.ndarray],
    manifest: pd.DataFrame,
    params: EvaluateParams,
    seed: int,
    out_of_fold: np.ndarray | None = None,
) -> Evaluation:
    """Choose the thresholds, and compute all tables of the evaluation.

    Args:
        datasets: Dictionary from split name to dataset.
        logits: Dictionary from split name (val, and test if it exists) to logits, float
            [num_photos, num_labels].
        manifest: Manifest with one row per photo of the packed array, in the same order.
        params: Params in the group `evaluate`.
        seed: Seed of the bootstrap resamples.
        out_of_fold: Out-of-fold logits of train and val, float [num_photos, num_labels], which the
            `train` stage writes for linear probes. Omit if there are none.
    """
    photos, unseen, chosen_on = datasets["val"], logits["val"], "val"
    if out_of_fold is not None:
        photos, unseen = join_datasets([datasets["train"], photos]), out_of_fold
        chosen_on = "train and val, with out-of-fold predictions"
    temperature = fit_temperature(photos.targets, unseen)
    applied = temperature if params.calibrate else 1.0
    logits = {split: values / applied for split, values in logits.items()}
    thresholds = choose_thresholds(photos, unseen / applied, chosen_on, params, seed)

    split = "test" if "test" in logits else "val"
    evaluated, own = datasets[split], logits[split]
    targets, labels = evaluated.targets, evaluated.labels
    predicted = sigmoid(own) >= thresholds.values
    weights = bootstrap_weights(len(evaluated), params.resamples, seed, evaluated.groups)
    slices = slice_photos(evaluated, manifest.iloc[evaluated.rows])
    held_out = join_datasets([datasets[name] for name in logits])
    splits = np.repeat(list(logits), [len(values) for values in logits.values()])
    probabilities = sigmoid(np.concatenate(list(logits.values())))
    tables = {
        "scores": tabulate_scores(
            datasets["train"].targets, targets, own, thresholds.values, weights
        ),
        "per_label": tabulate_labels(labels, targets, own, thresholds, weights),
        "slices": tabulate_slices(slices, targets, own, predicted, weights),
        "predictions": tabulate_predictions(held_out, splits, probabilities, thresholds.values),
        "label_errors": tabulate_label_errors(held_out, splits, probabilities),
        "pr_curve": tabulate_curve(targets, own),
        "cooccurrence": tabulate_cooccurrence(labels, targets, predicted),
    }
    return Evaluation(datasets, logits, split, temperature, applied, thresholds, tables)


def operating_point(result: Evaluation, content_key: str) -> dict[str, Any]:
    """Return the content of thresholds.json. Predictions require this file and the weights.

    The content is the key of the training, the temperature (the divisor of the logits) and the
    target and threshold of each label. The threshold of a label that abstains is `ABSTAIN`.
    """
    labels = result.datasets[result.split].labels
    targets = [str(target) for target in result.thresholds.targets or [F1] * len(labels)]
    return {
        "content_key": content_key,
        "temperature": result.applied_temperature,
        "targets": dict(zip(labels, targets, strict=True)),
        "thresholds": dict(zip(labels, result.thresholds.values.tolist(), strict=True)),
    }


def headline(scores: pd.DataFrame, split: str = "test") -> dict[str, float]:
    """Return the content of metrics.json, with 8 significant digits as in the tables.

    To display fewer digits, round these numbers directly: rounding twice can give a wrong digit.

    Returns:
        Metrics named in `HEADLINE` and, if some entries are unknown, `known`: the number of known
        entries. Names of metrics on val start with `final_val_`, so that these metrics are not
        mistaken for metrics on test or for metrics of a training epoch.
    """
    values = scores.set_index(["predictor", "metric"])["value"]
    # JSON cannot represent NaN: if no label has positives, mAP is undefined and becomes 0.
    found = {name: float(f"{np.nan_to_num(values[row]):.8g}") for name, row in HEADLINE.items()}
    if "known" in scores:
        found["known"] = int(scores["known"].iloc[0])
    return found if split == "test" else {f"{VAL_PREFIX}{name}": found[name] for name in found}
