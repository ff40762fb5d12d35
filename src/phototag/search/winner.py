"""Comparison of a study's winner with the settings from which its trials started, on test.

Without a test split (`split.test: 0`) both are compared on val, which favours the winner because it
was chosen on val.
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
from phototag.experiments.dvc_tools import list_experiments, open_revision, run_queued
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.classification import classification_scores
from phototag.metrics.losses import weighted_cross_entropy
from phototag.metrics.ranking import ranking_scores
from phototag.pages.escaping import escape_spreadsheet_cell
from phototag.registry.comparison import list_differences
from phototag.search.storage import SETTINGS, Plan

METRICS = ("f1_micro", "f1_macro", "mAP_macro", "loss")
# predictions.csv rounds probabilities to 8 digits, so 0 and 1 stand for values up to this close.
EPSILON = 1e-8


@dataclass(frozen=True)
class Comparison:
    """Scores of the winner and the start on the same photos.

    Attributes:
        table: Columns seed, metric, winner, start, difference, low and high (95% interval of the
            difference).
        split: `test`, or `val` if there is no test split.
        num_winners: Number of winners of this study that were evaluated so far.
        experiments: Names of the DVC experiments, winners first.
    """

    table: pd.DataFrame
    split: str
    num_winners: int
    experiments: tuple[str, ...]


def compare_on_test(plan: Plan, best: FrozenTrial) -> Comparison:
    """Evaluate the winner and the start as DVC experiments, and compare their predictions.

    Only these experiments of a study include the `evaluate` stage. Experiments that exist are not
    run again, and the winner's model comes from DVC's cache.

    Raises:
        InputError: An experiment failed.
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
    run_queued(root, experiments, jobs=1)
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
    # The names of winners are STUDY-bestTRIAL-sSEED.
    num_winners = sum(name.startswith(f"{plan.name}-best") for name in revisions) // len(seeds)
    return Comparison(pd.concat(tables), split, num_winners, tuple(experiments))


def _read_predictions(root: Path, revision: str) -> pd.DataFrame:
    """Read the predictions of a revision on test, or on val without test, and add the group."""
    files, project = open_revision(root, revision)
    tables = []
    for path in ("reports/evaluate/predictions.csv", "data/splits.csv"):
        with files.open(f"{project}{path}") as file:
            tables.append(pd.read_csv(io.BytesIO(file.read()), keep_default_na=False))
    predictions, splits = tables
    split = "test" if (splits["split"] == "test").any() else "val"
    splits["image"] = splits["image"].map(escape_spreadsheet_cell)
    rows = predictions[predictions["split"] == split].merge(splits[["image", "group"]], on="image")
    # Unknown targets are empty cells.
    return rows.assign(target=pd.to_numeric(rows["target"]).fillna(UNKNOWN).astype(int))


def compare_predictions(
    winner: pd.DataFrame, start: pd.DataFrame, resamples: int, seed: int
) -> pd.DataFrame:
    """Compare the predictions of two models by a paired bootstrap over groups of photos.

    Photos that are in only one of the tables are left out: photos may have been added after the
    start was evaluated. Photos without a known target are left out, too.

    Args:
        winner: Columns image, label, target (1, 0 or `UNKNOWN`), probability, predicted and group;
            the rows of a photo are adjacent, with labels in the same order for all photos.
        start: The same columns, in any order of rows.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        Columns metric, winner, start, difference, low and high.
    """
    num_labels = winner["label"].nunique()
    known = winner.loc[winner["target"] != UNKNOWN, "image"]
    winner = winner[winner["image"].isin(set(start["image"]) & set(known))]
    start = winner[["image", "label"]].merge(start, on=["image", "label"])  # the same order
    groups = list(map(str, winner["group"][::num_labels]))
    weights = bootstrap_weights(len(groups), resamples, seed, groups)
    new, old = (_score(table, num_labels, weights) for table in (winner, start))
    rows = list_differences(new, old, METRICS, len(set(groups)))
    return pd.DataFrame(rows, columns=["metric", "winner", "start", "difference", "low", "high"])


def _score(table: pd.DataFrame, num_labels: int, weights: np.ndarray) -> Mapping[str, Any]:
    """Return each metric on the photos and on each resample, float64 [1 + resamples]."""
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
