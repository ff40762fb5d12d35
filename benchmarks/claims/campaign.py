"""Campaigns: run the experiments of claims with DVC, and update the results page."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.claims.claims import SYNTHETIC_NAME, plan_runs, read_experiments
from benchmarks.claims.collection import RUN, collect_results, list_finished, read_runs
from benchmarks.claims.page import write_results
from benchmarks.claims.tables import format_spread
from benchmarks.claims.verdicts import predict_range
from phototag.base.errors import InputError
from phototag.experiments.workspaces import run_experiments
from phototag.schema.params import read_all_params

SHOWN = {"val_loss": "val loss", "test_f1_micro": "micro F1", "test_f1_macro": "macro F1"}


def run_claims(
    root: Path,
    claims: Sequence[str],
    photos: Path | None,
    variants: Sequence[str],
    seeds: Sequence[int],
    only_missing: bool,
    report: Callable[[str], None],
) -> None:
    """Run the experiments of claims with DVC, report the scores, and update the results page.

    Args:
        root: Root folder of the project.
        claims: Names of claims in experiments.yaml.
        photos: Zip or folder of photos (default: `data.raw` in params.yaml).
        variants: Names of the variants to run; empty for all variants of the claims.
        seeds: Seeds; each variant is run once with each seed.
        only_missing: Skip runs that already have a row in runs.csv.
        report: Function called with the new and the tracked scores, even if a run failed.

    Raises:
        InputError: A claim, variant or path does not exist, or a run failed.
    """
    experiments = read_experiments()
    raw = read_all_params(root / "params.yaml").data.raw
    runs = plan_runs(experiments, claims, photos, variants, seeds, raw)
    tracked = read_runs(root)
    if only_missing:
        known = set(tracked[RUN].itertuples(index=False, name=None))
        runs = [run for run in runs if (run.photos, run.variant, run.seed) not in known]
    failure = None
    try:
        run_experiments(root, {run.name: run.overrides for run in runs})
    except InputError as error:  # raised after the results of the other runs are collected
        failure = error
    report(compare_with_tracked(collect_results(root, runs), tracked))
    if failure:
        raise failure
    write_results(root, experiments)


def update_results(root: Path) -> None:
    """Collect the results of finished DVC experiments, and write the results page."""
    experiments = read_experiments()
    collect_results(root, list_finished(root, experiments))
    write_results(root, experiments)


def compare_with_tracked(rows: pd.DataFrame, tracked: pd.DataFrame) -> str:
    """Describe each run's scores next to the mean, range and prediction interval in runs.csv."""
    lines = []
    for row in rows.to_dict("records"):
        same = tracked[
            (tracked["photos"] == row["photos"]) & (tracked["variant"] == row["variant"])
        ]
        if row["photos"] != SYNTHETIC_NAME:  # the synthetic dataset depends on the seed
            same = same[same["data"].isna() | (same["data"] == row["data"])]
        lines.append(f"{row['photos']}-{row['variant']}-s{row['seed']}")
        for key, title in SHOWN.items():
            text = f"  {title:<9} {row[key]:.4f}"
            if len(same):
                text += f"   tracked over {len(same)} seeds: {format_spread(same[key], 4)}"
            if len(same) > 2:  # with two seeds, the interval is wider than 0..1
                low, high = predict_range(same[key])
                within = "within" if low <= row[key] <= high else "NOT within"
                text += f"   {within} {max(low, 0):.3f} to {high:.3f}"
            lines.append(text)
    return "\n".join(lines)
