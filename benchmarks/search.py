"""Compare TPE, random search and one-parameter-at-a-time search at equal CPU time.

Run `python -m benchmarks.search STUDY SECONDS [SEED...]` in a project in which `dvc repro embed`
has run. Each method runs a study of search.yaml for SECONDS of CPU time: with the settings in
search.yaml; with random sampling and no pruning; and, for the study `report`, with the method of
the report, which started with its network, varied one key after another and kept the best value of
each key. CPU time is measured so that other programs do not affect the comparison. Trials call the
train stage but are not DVC experiments, so the overhead of DVC is not included.

The benchmark writes docs/research/results/search-STUDY.csv, one row per trial, and
search-STUDY.png.
"""

import math
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import yaml

from benchmarks.claims.claims import read_experiments
from benchmarks.claims.collection import RESULTS
from phototag.base.files import write_table
from phototag.base.keys import apply_overrides, flatten
from phototag.metrics.selection import best_record
from phototag.pages.figures import figure_style, new_figure, save_figure
from phototag.schema.params import Params
from phototag.search.storage import PRUNERS, build_sampler
from phototag.search.studies import (
    Study,
    find_conflict,
    read_search,
    suggest_settings,
)
from phototag.tracking.training import Stopped
from phototag.training.checkpoint import discard_checkpoint
from phototag.training.records import Record
from stages.train import train_network

# Settings that the report varied, as one tuple of variants in experiments.yaml per key.
ONE_AT_A_TIME = (
    ("no-1x1", "shallower", "deeper"),
    ("two-linear", "one-linear"),
    ("adagrad", "sgd", "sgd-fast"),
    ("lr-low", "lr-high"),
    ("decay-low", "decay-high"),
    ("batch-16", "batch-32", "batch-128"),
)
LABELS = ("CPU time (minutes)", "lowest val loss")
SEEDS = ("0", "1", "2")
WAYS = {"tune": "tpe", "by chance": "random", "one at a time": ""}


class Trainer:
    """Trains like the train stage, until a limit of CPU time is reached."""

    def __init__(self, budget: float) -> None:
        """Start measuring CPU time.

        Args:
            budget: Limit of the CPU time, in seconds.
        """
        self.budget, self.began = budget, time.process_time()

    @property
    def spent(self) -> float:
        """CPU time since the start, in seconds."""
        return time.process_time() - self.began

    @property
    def is_over(self) -> bool:
        """Whether the budget is used up. In this case, no other trial may start."""
        return self.spent >= self.budget

    def score(self, values: dict[str, Any], trial: optuna.trial.Trial | None = None) -> float:
        """Train and return the lowest val loss, or NaN if the trial is pruned."""
        records: list[dict[str, Any]] = []

        def watch(epochs: Iterator[Record]) -> Iterator[Record]:
            for epoch in epochs:
                records.append(epoch)
                yield epoch
                if trial is not None:
                    trial.report(epoch["val_loss"], len(records))
                    if trial.should_prune():
                        raise Stopped

        try:
            trained = train_network(Params.model_validate(values), watch)
        except Stopped:
            return math.nan
        discard_checkpoint(trained.checkpoint)
        return float(best_record(records)["val_loss"])


def run_study(trainer: Trainer, study: Study, base: dict[str, Any]) -> Iterator[float]:
    """Propose and prune trials like `phototag tune`; yield the lowest val loss of each trial."""
    search = optuna.create_study(sampler=build_sampler(study), pruner=PRUNERS[study.pruner]())
    while not trainer.is_over:
        trial = search.ask()
        settings = suggest_settings(trial, study.space)
        if find_conflict(base, settings):
            search.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        loss = trainer.score(apply_overrides(base, settings), trial)
        if math.isnan(loss):
            search.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            search.tell(trial, loss)
        yield loss


def change_one(trainer: Trainer, base: dict[str, Any], seed: int) -> Iterator[float]:
    """Vary keys in random order, keep each best value, and yield the val loss of each trial."""
    variants = read_experiments().variants
    best, kept = trainer.score(base), base
    yield best
    for index in np.random.default_rng(seed).permutation(len(ONE_AT_A_TIME)):
        start = kept
        for name in ONE_AT_A_TIME[index]:
            if trainer.is_over:
                return
            values = apply_overrides(start, dict(flatten(variants[name])))
            loss = trainer.score(values)
            if loss < best:
                best, kept = loss, values
            yield loss


def draw_curves(table: pd.DataFrame, path: Path) -> None:
    """Plot the lowest val loss so far over CPU time, with one line per seed and method."""
    figure, axes = new_figure("Lowest val loss by CPU time", *LABELS)
    for number, (way, rows) in enumerate(table.groupby("way", sort=False)):
        for seed, trials in rows.groupby("seed"):
            lowest = trials["val_loss"].cummin().ffill()
            label = str(way) if seed == rows["seed"].iloc[0] else None
            axes.step(trials["seconds"] / 60, lowest, where="post", color=f"C{number}", label=label)
    axes.legend()
    save_figure(figure, path)


def main() -> None:
    """Run all methods with each seed, print the results, and write the table and the figure."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    name, budget = sys.argv[1], float(sys.argv[2])
    shipped = read_search().studies[name]
    overrides = dict(flatten(read_experiments().variants[shipped.recipe or "report"]))
    base = apply_overrides(
        yaml.safe_load(Path("params.yaml").read_text()), overrides | flatten(shipped.settings)
    )
    rows = []
    for seed in map(int, sys.argv[3:] or SEEDS):
        for way, sampler in WAYS.items():
            if way == "one at a time" and name != "report":
                continue
            trainer = Trainer(budget)
            changes: dict[str, Any] = {"seed": seed, "sampler": sampler}
            if way == "by chance":
                changes["pruner"] = "none"
            losses = (
                run_study(trainer, shipped.model_copy(update=changes), base)
                if sampler
                else change_one(trainer, base, seed)
            )
            for trial, loss in enumerate(losses):
                found = {"way": way, "seed": seed, "trial": trial}
                rows.append(found | {"seconds": round(trainer.spent, 1), "val_loss": loss})
                print(rows[-1], flush=True)
            write_table(RESULTS / f"search-{name}.csv", pd.DataFrame(rows))
    table = pd.DataFrame(rows)
    with figure_style():
        draw_curves(table, RESULTS / f"search-{name}.png")
    ends = table.groupby(["way", "seed"], sort=False)["val_loss"].agg(["min", "size", "count"])
    print(ends.rename(columns={"min": "val_loss", "size": "trials", "count": "to the end"}))


if __name__ == "__main__":
    main()
