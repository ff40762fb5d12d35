"""Comparison of a study's winner (the best trial) with the settings that the trials started from.

Both are evaluated on test. If there is no test split (`split.test` is 0), they are evaluated on
val. Such a comparison favours the winner, because the winner was chosen on val.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from optuna.trial import FrozenTrial

from phototag.base.keys import apply_overrides, flatten
from phototag.base.params import read_values
from phototag.dataset.targets import UNKNOWN
from phototag.experiments.dvc_tools import list_experiments, open_revision
from phototag.experiments.workspaces import run_experiments
from phototag.metrics.bootstrap import bootstrap_weights, effective_groups
from phototag.metrics.classification import classification_scores
from phototag.metrics.losses import weighted_cross_entropy
from phototag.metrics.ranking import ranking_scores
from phototag.pages.escaping import escape_spreadsheet_cell
from phototag.registry.comparison import list_differences
from phototag.search.storage import SETTINGS, Plan

METRICS = ("f1_micro", "f1_macro", "mAP_macro", "loss")
# Probabilities in predictions.csv are rounded to 8 digits. Values below EPSILON may become 0.
EPSILON = 1e-8
TAIL = 0.025  # probability on each side of a 95% interval


@dataclass(frozen=True)
class Comparison:
    """Scores of the winner and of the start settings on the same photos.

    Attributes:
        table: Table with the columns seed, metric, winner, start, difference, low and high. `low`
            and `high` are the bounds of the 95% interval of the difference.
        split: Split that contains the photos: `test`, or `val` if there is no test split.
        num_winners: Number of winners of this study that have been evaluated so far.
        experiments: Names of the DVC experiments of the winner, followed by those of the start
            settings.
    """

    table: pd.DataFrame
    split: str
    num_winners: int
    experiments: tuple[str, ...]


def compare_on_test(plan: Plan, best: FrozenTrial) -> Comparison:
    """Evaluate the winner and the start settings in DVC experiments, and compare their predictions.

    All other experiments of a study end before the stage `evaluate`. Existing experiments are not
    run again. The winner is not trained again, because its model is in DVC's cache.

    Raises:
        InputError: One of the experiments failed.
    """
    root, seeds = plan.root, plan.study.seeds
    present = flatten(read_values(root / "params.yaml"))
    variants = {f"best{best.number}": best.user_attrs[SETTINGS], "start": {}}
    experiments = {}
    for variant, settings in variants.items():
        values = flatten(apply_overrides(plan.base, settings))
        changes = {key: value for key, value in values.items() if present.get(key) != value}
        for seed in seeds:
            experiments[f"{plan.name}-{variant}-s{seed}"] = changes | {"seed": seed}
    run_experiments(root, experiments)
    revisions = dict(list_experiments(root))
    tables = []
    for seed in seeds:
        winner, start = (
            _read_predictions(root, revisions[f"{plan.name}-{variant}-s{seed}"])
            for variant in variants
        )
        table = compare_predictions(winner, start, plan.base["evaluate"]["resamples"], seed)
        table.insert(0, "seed", seed)
        tables.append(table)
    split = winner["split"].iloc[0]
    # Format of the winners' experiment names: STUDY-bestTRIAL-sSEED.
    num_winners = sum(name.startswith(f"{plan.name}-best") for name in revisions) // len(seeds)
    return Comparison(pd.concat(tables), split, num_winners, tuple(experiments))


def _read_predictions(root: Path, revision: str) -> pd.DataFrame:
    """Return the predictions on test (or val) at a git revision, with each photo's group."""
    files, project = open_revision(root, revision)
    tables = []
    for path in ("reports/evaluate/predictions.csv", "data/splits.csv"):
        with files.open(f"{project}{path}") as file:
            tables.append(pd.read_csv(io.BytesIO(file.read()), keep_default_na=False))
    predictions, splits = tables
    split = "test" if (splits["split"] == "test").any() else "val"
    splits["image"] = splits["image"].map(escape_spreadsheet_cell)
    rows = predictions[predictions["split"] == split].merge(splits[["image", "group"]], on="image")
    # Unknown targets are empty cells in predictions.csv.
    return rows.assign(target=pd.to_numeric(rows["target"]).fillna(UNKNOWN).astype(int))


def compare_predictions(
    winner: pd.DataFrame, start: pd.DataFrame, resamples: int, seed: int
) -> pd.DataFrame:
    """Compare the predictions of two models with a paired bootstrap over groups of photos.

    Photos that are in only one of the tables, or have no known target, are ignored.

    Args:
        winner: Table of the winner with the columns image, label, target (1, 0 or `UNKNOWN`),
            probability, predicted and group. The rows of each photo must be adjacent, with the
            labels in the same order for all photos.
        start: Table of the start settings with the same columns. Its rows may be in any order.
        resamples: Number of bootstrap resamples.
        seed: Random seed of the resamples.

    Returns:
        Table with the columns metric, winner, start, difference, low and high, one row per metric.
    """
    num_labels = winner["label"].nunique()
    known = winner.loc[winner["target"] != UNKNOWN, "image"]
    winner = winner[winner["image"].isin(set(start["image"]) & set(known))]
    # Sort the rows of both tables in the same order, and use the targets of the winner.
    shared = winner[["image", "label", "target"]]
    start = shared.merge(start.drop(columns="target"), on=["image", "label"])
    groups = list(map(str, winner["group"][::num_labels]))
    weights = bootstrap_weights(len(groups), resamples, seed, groups)
    new, old = (_score(table, num_labels, weights) for table in (winner, start))
    rows = list_differences(new, old, METRICS, effective_groups(groups), TAIL)
    return pd.DataFrame(rows, columns=["metric", "winner", "start", "difference", "low", "high"])


def _score(table: pd.DataFrame, num_labels: int, weights: np.ndarray) -> Mapping[str, Any]:
    """Return each metric on all photos and then on each resample, float64 [1 + resamples]."""
    targets, probabilities, predicted = (
        table[column].to_numpy().reshape(-1, num_labels)
        for column in ("target", "probability", "predicted")
    )
    clipped = np.clip(probabilities.astype(float), EPSILON, 1 - EPSILON)
    return (
        classification_scores(targets, predicted, weights)
        | ranking_scores(targets, clipped, weights)
        | {"loss": weighted_cross_entropy(targets, np.log(clipped / (1 - clipped)), weights)}
    )
