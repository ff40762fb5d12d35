"""What was found out about a model: thresholds chosen on val, the judged split scored."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from phototag.dataset.dataset import Dataset, join_datasets
from phototag.evaluation.calibration import fit_temperature
from phototag.evaluation.label_errors import find_label_errors
from phototag.evaluation.params import EvaluateParams
from phototag.evaluation.slices import slice_photos, tabulate_slices
from phototag.evaluation.tables import (
    tabulate_cooccurrence,
    tabulate_curve,
    tabulate_label_errors,
    tabulate_labels,
    tabulate_predictions,
    tabulate_scores,
)
from phototag.evaluation.thresholds import RESAMPLES, Thresholds, choose_thresholds
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.losses import sigmoid

# In metrics.json: the predictor's row of the score table, and the metric in it.
HEADLINE = {
    "loss": ("model", "loss"),
    "f1_micro": ("model", "f1_micro"),
    "f1_macro": ("model", "f1_macro"),
    "f1_samples": ("model", "f1_samples"),
    "mAP": ("model", "mAP_macro"),
    "f1_micro_at_0.5": ("model at 0.5", "f1_micro"),
    "f1_macro_at_0.5": ("model at 0.5", "f1_macro"),
}


@dataclass(frozen=True)
class Evaluation:
    """What was found out about a model.

    Attributes:
        datasets: The splits.
        logits: Of val, and of test where there is one, divided by the temperature if that is
            wanted, float [num_photos, num_labels] each.
        split: The one that is judged: test, or val where there is no test split.
        temperature: That fits val best, whether it is applied or not.
        applied: By which the logits were divided: that one, or 1.
        thresholds: Chosen on val, and out of fold on train where there are such logits.
        chosen_on: In words.
        tables: By the names under which they are written; see the `tabulate_` functions.
    """

    datasets: Mapping[str, Dataset]
    logits: Mapping[str, np.ndarray]
    split: str
    temperature: float
    applied: float
    thresholds: Thresholds
    chosen_on: str
    tables: Mapping[str, pd.DataFrame]


def evaluate(
    datasets: Mapping[str, Dataset],
    logits: Mapping[str, np.ndarray],
    manifest: pd.DataFrame,
    params: EvaluateParams,
    seed: int,
    out_of_fold: np.ndarray | None = None,
) -> Evaluation:
    """Choose thresholds on val, and score and tabulate the judged split.

    Where train's photos were each judged by a network that had not seen them, thresholds are chosen
    on these too: rare labels have many times the positives there.

    Args:
        datasets: The splits.
        logits: Of val, and of test where there is one, float [num_photos, num_labels] each.
        manifest: The kept photos' rows, in the order of the packed array.
        params: Of the stage.
        seed: Of the resamples.
        out_of_fold: Logits of train, of `linear_probe.predict_out_of_fold`.
    """
    val = datasets["val"]
    temperature = fit_temperature(val.targets, logits["val"])
    used = temperature if params.calibrate else 1.0
    logits = {split: values / used for split, values in logits.items()}
    chosen_on, seen = val, logits["val"]
    if out_of_fold is not None:
        chosen_on = join_datasets([datasets["train"], val])
        seen = np.concatenate([out_of_fold / used, seen])
    thresholds = choose_thresholds(
        chosen_on.targets,
        sigmoid(seen),
        params.prior_strength,
        bootstrap_weights(len(chosen_on), RESAMPLES, seed, chosen_on.groups),
    )

    split = "test" if "test" in logits else "val"
    judged, cuts = datasets[split], thresholds.values
    predicted = sigmoid(logits[split]) >= cuts
    weights = bootstrap_weights(len(judged), params.resamples, seed, judged.groups)
    held_out = join_datasets([datasets[name] for name in logits])
    suspects = find_label_errors(held_out.targets, sigmoid(np.concatenate([*logits.values()])))
    tables = {
        "scores": tabulate_scores(
            datasets["train"].targets, judged.targets, logits[split], cuts, weights
        ),
        "per_label": tabulate_labels(
            judged.labels, judged.targets, logits[split], thresholds, weights
        ),
        "slices": tabulate_slices(
            slice_photos(judged, manifest.iloc[judged.rows]),
            judged.targets,
            logits[split],
            predicted,
            weights,
        ),
        "predictions": tabulate_predictions(datasets, logits, cuts),
        "label_errors": tabulate_label_errors(datasets, list(logits), suspects),
        "pr_curve": tabulate_curve(judged.targets, logits[split]),
        "cooccurrence": tabulate_cooccurrence(judged.labels, judged.targets, predicted),
    }
    where = (
        "val" if out_of_fold is None else "val, and on train by heads that had not seen the photo"
    )
    return Evaluation(datasets, logits, split, temperature, used, thresholds, where, tables)


def operating_point(result: Evaluation, params: EvaluateParams, content_key: str) -> dict[str, Any]:
    """Return what turns a model's logits into labels.

    Args:
        result: Of `evaluate`.
        params: What is wanted.
        content_key: Of the model.

    Returns:
        content_key, temperature (1 if not wanted) and thresholds (label -> 0..1).
    """
    labels = result.datasets[result.split].labels
    return {
        "content_key": content_key,
        "temperature": result.temperature if params.calibrate else 1.0,
        "thresholds": dict(zip(labels, result.thresholds.values.tolist(), strict=True)),
    }


def headline(table: pd.DataFrame) -> dict[str, float]:
    """Pick the few metrics that stand in metrics.json, with 8 digits, as tables have.

    To round what was rounded may be off by one in the last digit, so who shows them rounds them.
    Where some entries are not known, `known` is how many are, as in the table.
    """
    values = table.set_index(["predictor", "metric"])["value"]
    # A value that does not exist (no label has positives) is 0 here: JSON knows no NaN.
    found = {name: float(f"{np.nan_to_num(values[row]):.8g}") for name, row in HEADLINE.items()}
    return found | ({"known": int(table["known"].iloc[0])} if "known" in table else {})
