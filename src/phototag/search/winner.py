"""Comparison of a study's winner (the best trial) with the settings that the trials started from.

Both are evaluated on test. If there is no test split (`split.test` is 0), they are evaluated on
val or, if they are linear probes, by cross-validation. Such a comparison favours the winner,
because the winner was chosen on the same photos.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from optuna.trial import FrozenTrial

from phototag.base.keys import apply_overrides, flatten
from phototag.base.params import read_values
from phototag.experiments.dvc_tools import list_experiments, open_revision
from phototag.experiments.workspaces import run_experiments
from phototag.registry.predictions import (
    PREDICTIONS,
    SPLITS,
    compare_predictions,
    parse_predictions,
)
from phototag.search.storage import SETTINGS, Plan


@dataclass(frozen=True)
class Comparison:
    """Scores of the winner and of the start settings on the same photos.

    Attributes:
        table: Table with the columns seed, metric, winner, start, difference, low and high. `low`
            and `high` are the bounds of the 95% interval of the difference.
        split: Origin of the scores: `test`, `val` or `cross-validation`.
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
        table = table.rename(columns={"new": "winner", "old": "start"})
        table.insert(0, "seed", seed)
        tables.append(table)
    split = winner["split"].iloc[0]
    # Format of the winners' experiment names: STUDY-bestTRIAL-sSEED.
    num_winners = sum(name.startswith(f"{plan.name}-best") for name in revisions) // len(seeds)
    return Comparison(pd.concat(tables), split, num_winners, tuple(experiments))


def _read_predictions(root: Path, revision: str) -> pd.DataFrame:
    files, project = open_revision(root, revision)
    contents = []
    for path in (PREDICTIONS, SPLITS):
        with files.open(f"{project}{path}") as file:
            contents.append(file.read())
    return parse_predictions(*contents)
