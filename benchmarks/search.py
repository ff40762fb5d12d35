"""What three ways of searching find in the same time: TPE with pruning, chance, one at a time.

In a project whose photos are packed and split (`dvc repro split`), `python -m benchmarks.search
SECONDS [SEED...]` gives each way so many seconds of processor time for the study `report` of
search.yaml: as it stands there (TPE, median pruning); drawn at random and never pruned; and as the
report went about it, from its network, a key after the other, keeping the best value so far. Time
is the processor's, so that other work on the machine favours nobody. Trials train as the stage
does, but are no experiments: what those cost besides is measured by `phototag tune` itself.

It writes docs/results/search.csv, a row a trial, and docs/results/search.png.
"""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
import yaml

from phototag.base.files import read_json, write_table
from phototag.base.params import Params
from phototag.data.dataset import Dataset, read_datasets
from phototag.data.targets import label_rates
from phototag.experiments.claims import apply_overrides, flatten, read_experiments
from phototag.experiments.collection import RESULTS
from phototag.network.allocator import keep_freed_memory
from phototag.network.metrics import kept_epoch
from phototag.network.model import build_model, initialize
from phototag.pages.figures import figure_style, new_figure, save_figure
from phototag.search.feasibility import why_infeasible
from phototag.search.journal import build_pruner, build_sampler
from phototag.search.space import propose
from phototag.search.studies import Study, find_study, read_search
from phototag.training.loop import fit

# What the report varied, in its own values: variants of experiments.yaml, a list a key.
ONE_AT_A_TIME = (
    ("no-1x1", "shallower", "deeper"),
    ("two-linear", "one-linear"),
    ("adagrad", "sgd", "sgd-fast"),
    ("lr-low", "lr-high"),
    ("decay-low", "decay-high"),
    ("batch-16", "batch-32", "batch-128"),
)
LABELS = ("processor time (minutes)", "lowest val loss so far")
WAYS = {"TPE, pruned": "tpe", "by chance": "random", "one at a time": ""}


class Trainer:
    """Trains on the project's photos, and counts the time."""

    def __init__(self, budget: float) -> None:
        """Read the photos.

        Args:
            budget: Seconds of processor time.
        """
        names = ("images.npy", "manifest.csv", "splits.csv")
        parts = read_datasets(*(Path("data", name) for name in names))
        self.train: Dataset = parts["train"]
        self.val: Dataset = parts["val"]
        self.stats = read_json(Path("data/stats.json"))
        self.budget, self.began = budget, time.process_time()
        self.rows: list[dict[str, Any]] = []

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return time.process_time() - self.began

    @property
    def is_over(self) -> bool:
        """Whether no new trial may begin."""
        return self.spent >= self.budget

    def score(self, values: dict[str, Any], trial: optuna.trial.Trial | None = None) -> float:
        """Return the lowest val loss of a training; not a number if the trial is pruned."""
        params = Params.model_validate(values)
        torch.manual_seed(params.seed)
        network = build_model(
            params.model,
            len(self.train.labels),
            params.resize.size,
            self.stats["mean"],
            self.stats["std"],
        )
        prior = torch.from_numpy(label_rates(self.train.targets)).float()
        initialize(network, params.model, prior)
        records = []
        for epoch in fit(network, self.train, self.val, params):
            records.append(asdict(epoch))
            if trial is not None:
                trial.report(epoch.val_loss, epoch.epoch)
                if trial.should_prune():
                    break
        else:
            return float(kept_epoch(records)["val_loss"])
        return math.nan


def ask_and_tell(trainer: Trainer, study: Study, base: dict[str, Any]) -> Iterator[float]:
    """Yield each trial's val loss, as `phototag tune` proposes and prunes them."""
    search = optuna.create_study(direction="minimize", pruner=build_pruner(study))
    while not trainer.is_over:
        search.sampler = build_sampler(study, len(search.trials))
        trial = search.ask()
        settings = propose(trial, study, base)
        if why_infeasible(base, settings):
            trial.set_constraint("feasible", 1.0)
            search.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        loss = trainer.score(apply_overrides(base, settings), trial)
        if math.isnan(loss):
            search.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            search.tell(trial, loss)
        yield loss


def change_one(trainer: Trainer, base: dict[str, Any], seed: int) -> Iterator[float]:
    """Yield each trial's val loss: keys in any order, of each the best value so far is kept."""
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
    """Draw the lowest val loss so far over time: a line a seed, a colour a way."""
    figure, axes = new_figure("What is found in the same time", *LABELS)
    for number, (way, rows) in enumerate(table.groupby("way", sort=False)):
        for seed, trials in rows.groupby("seed"):
            lowest = trials["val_loss"].cummin().ffill()
            label = str(way) if seed == rows["seed"].iloc[0] else None
            axes.step(trials["seconds"] / 60, lowest, where="post", color=f"C{number}", label=label)
    hand = table.loc[(table["way"] == "one at a time") & (table["trial"] == 0), "val_loss"]
    axes.axhline(hand.mean(), color="0.5", linestyle=":", label="the report's network")
    axes.legend()
    save_figure(figure, path)


def main() -> None:
    """Run all ways with each seed, print what they found, and keep it."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    keep_freed_memory()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    budget, seeds = float(sys.argv[1]), [int(seed) for seed in sys.argv[2:]] or [0, 1, 2]
    shipped = find_study(read_search(), "report")
    base = apply_overrides(yaml.safe_load(Path("params.yaml").read_text()), shipped.settings)
    rows = []
    for seed in seeds:
        for way, sampler in WAYS.items():
            trainer = Trainer(budget)
            changes = {"seed": seed, "sampler": sampler}
            if sampler == "random":
                changes["pruner"] = "none"
            losses = (
                ask_and_tell(trainer, shipped.model_copy(update=changes), base)
                if sampler
                else change_one(trainer, base, seed)
            )
            for trial, loss in enumerate(losses):
                found = {"way": way, "seed": seed, "trial": trial}
                rows.append(found | {"seconds": round(trainer.spent, 1), "val_loss": loss})
                print(rows[-1], flush=True)
            write_table(RESULTS / "search.csv", pd.DataFrame(rows))
    table = pd.DataFrame(rows)
    with figure_style():
        draw_curves(table, RESULTS / "search.png")
    ends = table.groupby(["way", "seed"], sort=False)["val_loss"].agg(["min", "size", "count"])
    print(ends.rename(columns={"min": "val_loss", "size": "trials", "count": "to the end"}))


if __name__ == "__main__":
    main()
