"""The winner of a study beside the settings from which it started, on test, once.

Without a test split it is val, by which the winner was chosen: then the lead is flattered.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from phototag.base.errors import InputError
from phototag.base.keys import apply_overrides, flatten
from phototag.dataset.targets import UNKNOWN, is_known
from phototag.experiments.dvc_tools import list_experiments, open_revision
from phototag.experiments.queue import run_queued
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.classification import classification_scores
from phototag.metrics.losses import weighted_cross_entropy
from phototag.metrics.ranking import ranking_scores
from phototag.pages.escaping import escape_spreadsheet_cell
from phototag.registry.comparison import list_differences
from phototag.search.journal import SETTINGS, FrozenTrial, Plan

METRICS = ("f1_micro", "f1_macro", "mAP_macro", "loss")
FARTHEST = 1e-8  # of a probability from 0 and 1, which tables write with 8 digits


@dataclass(frozen=True)
class Contest:
    """The winner beside the start.

    Attributes:
        table: Columns seed, metric, winner, start, difference, low and high (of its 95% interval).
        judged: The split: test, or val where there is none.
        winners: How many winners of this study were evaluated so far.
        experiments: Those evaluated; the start and the winner, seed by seed.
    """

    table: pd.DataFrame
    judged: str
    winners: int
    experiments: tuple[str, ...]

    @property
    def experiment(self) -> str:
        """Of the winner, with the first seed."""
        return self.experiments[1]


def hold_contest(root: Path, plan: Plan, best: FrozenTrial) -> Contest:
    """Evaluate the winner and the start, in DVC's queue, and compare them on test.

    Both are experiments down to `evaluate`, the only ones of a study that are. What was evaluated
    before is not evaluated again; the winner's training is taken from DVC's cache.

    Raises:
        InputError: One failed; or no photo is in test of both.
    """
    won = f"best{best.number}"
    experiments = {}
    for seed in plan.study.seeds:
        for variant, settings in (("start", {}), (won, best.user_attrs[SETTINGS])):
            values = apply_overrides(plan.base, settings | {"seed": seed})
            experiments[f"{plan.name}-{variant}-s{seed}"] = _find_changes(root, values)
    run_queued(root, experiments, jobs=1)
    revisions = dict(list_experiments(root))
    parts = []
    for seed in plan.study.seeds:
        won_by, begun = (
            _read_predictions(root, revisions[f"{plan.name}-{variant}-s{seed}"])
            for variant in (won, "start")
        )
        judged = won_by["split"].iloc[0]
        resamples = plan.base["evaluate"]["resamples"]
        table = compare_predictions(won_by, begun, resamples, seed)
        table.insert(0, "seed", seed)
        parts.append(table)
    # Names end in -sSEED.
    winners = {
        name.rpartition("-s")[0] for name in revisions if name.startswith(f"{plan.name}-best")
    }
    return Contest(pd.concat(parts, ignore_index=True), judged, len(winners), tuple(experiments))


def _find_changes(root: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs from params.yaml, and the seed."""
    present = flatten(yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8")))
    wanted = flatten(values)
    return {k: v for k, v in wanted.items() if k == "seed" or k not in present or present[k] != v}


def _read_predictions(root: Path, revision: str) -> pd.DataFrame:
    """Read what a model says of the judged photos, and each photo's group."""
    files, project = open_revision(root, revision)
    tables = []
    for path in ("reports/evaluate/predictions.csv", "data/splits.csv"):
        with files.open(f"{project}{path}") as file:
            tables.append(pd.read_csv(io.BytesIO(file.read()), keep_default_na=False))
    predictions, splits = tables
    judged = "test" if (splits["split"] == "test").any() else "val"
    groups = dict(zip(splits["image"].map(escape_spreadsheet_cell), splits["group"], strict=True))
    own = predictions[predictions["split"] == judged]
    # The cell of what is not known is empty.
    targets = pd.to_numeric(own["target"]).fillna(UNKNOWN).astype(int)
    return own.assign(target=targets, group=own["image"].map(groups).astype(str))


def compare_predictions(
    winner: pd.DataFrame, start: pd.DataFrame, resamples: int, seed: int
) -> pd.DataFrame:
    """Compare two models on the same photos, by a paired bootstrap over photos, albums whole.

    Photos that only one of them was judged by are left out: at another size, others may look like
    copies, which are split together. So are those of which nothing is known.

    Args:
        winner: Columns image, label, target (1, 0 or `UNKNOWN`), probability, predicted and group;
            a photo's labels in a row, in the same order.
        start: The same of the other.
        resamples: Of the bootstrap.
        seed: Of the resamples.

    Returns:
        Columns metric, winner, start, difference, low and high.

    Raises:
        InputError: There is no photo that both were judged by.
    """
    count = winner["label"].nunique()
    known = winner.loc[is_known(winner["target"].to_numpy()), "image"]
    winner = winner[winner["image"].isin(set(start["image"]) & set(known))]
    if winner.empty:
        raise InputError(
            "the winner and the start have no photo in common by which both were judged: do not "
            "search resize.size"
        )
    both = []
    groups = winner["group"].tolist()[::count]
    weights = bootstrap_weights(len(groups), resamples, seed, groups)
    for table in (winner, start.set_index(["image", "label"])):
        if table is not winner:  # in the same order
            table = table.loc[pd.MultiIndex.from_frame(winner[["image", "label"]])]
        targets, probabilities, predicted = (
            table[column].to_numpy().reshape(-1, count)
            for column in ("target", "probability", "predicted")
        )
        near = np.clip(probabilities.astype(float), FARTHEST, 1 - FARTHEST)
        both.append(
            classification_scores(targets, predicted, weights)
            | ranking_scores(targets, near, weights)
            | {"loss": weighted_cross_entropy(targets, np.log(near / (1 - near)), weights)}
        )
    new, old = both
    rows = list_differences(new, old, METRICS, len(set(groups)))
    return pd.DataFrame(rows, columns=["metric", "winner", "start", "difference", "low", "high"])
