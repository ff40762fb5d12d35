"""Evaluation of a model: choice of its thresholds, and metrics on photos that it has not seen."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from phototag.dataset.dataset import Dataset, join_datasets
from phototag.evaluation.held_out import (
    OUT_OF_FOLD,
    OperatingPoint,
    Predictions,
    choose_point,
    cross_validate,
    join_predictions,
)
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
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.ranking import average_precision_and_auroc
from phototag.metrics.selection import CROSS_VALIDATION, SCORE_PREFIXES

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
        evaluated_on: Origin of the scores: `test`, `val`, or `cross-validation` of train and val.
        evaluated: Predictions for the photos on which the scores are computed.
        held_out: All predictions by models that were not trained on the photo. Those in `evaluated`
            are the last.
        fitted_on: Photos on which the weights were fitted.
        chosen_on: Photos on which the best epoch or the L2 strengths and `point` were chosen.
        point: Temperature and thresholds of the model.
        tables: Tables by file name; the functions `tabulate_...` document the columns.
        familiarity: Familiarity of each photo in the packed array, see `rate_photos`, or None.
    """

    evaluated_on: str
    evaluated: Predictions
    held_out: Predictions
    fitted_on: Dataset
    chosen_on: Dataset
    point: OperatingPoint
    tables: Mapping[str, pd.DataFrame]
    familiarity: np.ndarray | None


def evaluate(
    datasets: Mapping[str, Dataset],
    logits: Mapping[str, np.ndarray],
    manifest: pd.DataFrame,
    params: EvaluateParams,
    seed: int,
    out_of_fold: np.ndarray | None = None,
    familiarity: np.ndarray | None = None,
) -> Evaluation:
    """Choose the thresholds, and compute all tables of the evaluation.

    Args:
        datasets: Dictionary from split name to dataset.
        logits: Dictionary from split name to logits, float [num_photos, num_labels]: of test if
            there is a test split, and of val if there are no out-of-fold logits.
        manifest: Manifest with one row per photo of the packed array, in the same order.
        params: Params in the group `evaluate`.
        seed: Seed of the folds and of the bootstrap resamples.
        out_of_fold: Logits of train and val, float [num_rows, num_photos, num_labels], which the
            `train` stage writes for linear probes. The first row is used to choose the thresholds,
            and the others for `cross_validate`. Omit if there are none.
        familiarity: Familiarity of each photo in the packed array, float [num_images]. Omit if the
            model has none.
    """
    if out_of_fold is None:
        splits, known, described = ["val"], logits["val"], "val"
        fitted_on, chosen_on = datasets["train"], datasets["val"]
    else:
        splits, known, described = ["train", "val"], out_of_fold[0], OUT_OF_FOLD
        fitted_on = chosen_on = join_datasets([datasets[split] for split in splits])
    point = choose_point(chosen_on, known, described, params, seed)
    evaluated_on, evaluated = "val", point.predict(chosen_on, known)
    held_out = evaluated
    if "test" in logits:
        evaluated_on, evaluated = "test", point.predict(datasets["test"], logits["test"])
        held_out = join_predictions([held_out, evaluated])
        splits.append("test")
    elif out_of_fold is not None:
        evaluated_on = CROSS_VALIDATION
        held_out = evaluated = cross_validate(chosen_on, out_of_fold, params, seed)

    photos, own, predicted = evaluated.photos, evaluated.logits, evaluated.predicted
    targets, labels = photos.targets, photos.labels
    weights = bootstrap_weights(len(photos), params.resamples, seed, photos.groups)
    slices = slice_photos(photos, manifest.iloc[photos.rows])
    names = np.repeat(splits, [len(datasets[split]) for split in splits])
    by_label = average_precision_and_auroc(targets, evaluated.probabilities, weights)
    at_best_f1 = evaluated.at_best_f1 if point.thresholds.targets else None
    tables = {
        "scores": tabulate_scores(
            fitted_on.targets, targets, own, predicted, weights, by_label, at_best_f1
        ),
        "per_label": tabulate_labels(
            labels, targets, own, predicted, point.thresholds, weights, by_label, at_best_f1
        ),
        "slices": tabulate_slices(slices, targets, own, predicted, weights),
        "predictions": tabulate_predictions(held_out, names, familiarity),
        "label_errors": tabulate_label_errors(held_out, names),
        "pr_curve": tabulate_curve(targets, own),
        "cooccurrence": tabulate_cooccurrence(labels, targets, predicted),
    }
    return Evaluation(
        evaluated_on, evaluated, held_out, fitted_on, chosen_on, point, tables, familiarity
    )


def operating_point(result: Evaluation, content_key: str) -> dict[str, Any]:
    """Return the content of thresholds.json. Predictions require this file and the weights.

    The content is the key of the training, the temperature (the divisor of the logits) and the
    target and threshold of each label. The threshold of a label that abstains is `ABSTAIN`.
    """
    labels, thresholds = result.chosen_on.labels, result.point.thresholds
    targets = [str(target) for target in thresholds.targets or [F1] * len(labels)]
    return {
        "content_key": content_key,
        "temperature": result.point.divisor,
        "targets": dict(zip(labels, targets, strict=True)),
        "thresholds": dict(zip(labels, thresholds.values.tolist(), strict=True)),
    }


def headline(scores: pd.DataFrame, evaluated_on: str = "test") -> dict[str, float]:
    """Return the content of metrics.json, with 8 significant digits as in the tables.

    To display fewer digits, round these numbers directly: rounding twice can give a wrong digit.

    Returns:
        Metrics named in `HEADLINE` and, if some entries are unknown, `known`: the number of known
        entries. The names start with the prefix in `SCORE_PREFIXES`, so that metrics on val or by
        cross-validation are not mistaken for metrics on test or of a training epoch.
    """
    values = scores.set_index(["predictor", "metric"])["value"]
    # JSON cannot represent NaN: if no label has positives, mAP is undefined and becomes 0.
    found = {name: float(f"{np.nan_to_num(values[row]):.8g}") for name, row in HEADLINE.items()}
    if "known" in scores:
        found["known"] = int(scores["known"].iloc[0])
    return {f"{SCORE_PREFIXES[evaluated_on]}{name}": value for name, value in found.items()}
