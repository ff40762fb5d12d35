"""Campaigns: runs of claims, from DVC's queue to docs/results.md."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from phototag.base.errors import InputError
from phototag.experiments.claims import FILE, plan_runs, read_experiments
from phototag.experiments.collection import RUN, collect_results, list_finished, read_runs
from phototag.experiments.page import write_results
from phototag.experiments.queue import run_queued
from phototag.experiments.tables import format_spread
from phototag.experiments.verdicts import predict_range
from phototag.schema.params import read_all_params

SHOWN = {"val_loss": "val loss", "test_f1_micro": "micro F1", "test_f1_macro": "macro F1"}


def run_claims(
    root: Path,
    claims: Sequence[str],
    photos: Path | None,
    variants: Sequence[str],
    seeds: Sequence[int],
    jobs: int,
    only_missing: bool,
    tell: Callable[[str], None],
) -> None:
    """Run claims in DVC's queue, keep and tell what they gave, and write docs/results.md.

    Args:
        root: The repository.
        claims: Names of claims of experiments.yaml.
        photos: A zip or folder; None takes what params.yaml names.
        variants: Only these; empty takes all of the claims'.
        seeds: One run each.
        jobs: Experiments at a time.
        only_missing: Pass over what docs/results/ has a row of.
        tell: Takes the scores beside those tracked before; also where a run failed.

    Raises:
        InputError: A name is unknown, or a run failed.
    """
    experiments = read_experiments(root / FILE)
    raw = read_all_params(root / "params.yaml").data.raw
    runs = plan_runs(experiments, claims, photos, variants, seeds, raw)
    tracked = read_runs(root)
    if only_missing:
        there = set(tracked[RUN].itertuples(index=False, name=None))
        runs = [run for run in runs if (run.photos, run.variant, run.seed) not in there]
    failure = None
    try:
        run_queued(root, runs, jobs)
    except InputError as error:  # told last, when what the other runs gave is kept
        failure = error
    tell(compare_with_tracked(collect_results(root, runs), tracked))
    if failure:
        raise failure
    write_results(root, experiments)


def update_results(root: Path) -> None:
    """Keep what DVC's experiments gave in docs/results/, and write docs/results.md of it."""
    experiments = read_experiments(root / FILE)
    collect_results(root, list_finished(root, experiments))
    write_results(root, experiments)


def compare_with_tracked(rows: pd.DataFrame, tracked: pd.DataFrame) -> str:
    """Tell each run's scores beside those in docs/results/, their spread, and what to expect."""
    lines = []
    for row in rows.to_dict("records"):
        same = tracked[
            (tracked["photos"] == row["photos"]) & (tracked["variant"] == row["variant"])
        ]
        lines.append(f"{row['photos']}-{row['variant']}-s{row['seed']}")
        for key, title in SHOWN.items():
            told = f"  {title:<9} {row[key]:.4f}"
            if len(same):
                told += f"   tracked over {len(same)} seeds: {format_spread(same[key], 4)}"
            if len(same) > 2:  # of two, it is wider than any score can be
                low, high = predict_range(same[key])
                within = "within" if low <= row[key] <= high else "NOT within"
                told += f"   {within} {max(low, 0):.3f} to {high:.3f}"
            lines.append(told)
    return "\n".join(lines)
