"""Campaigns: run claims in DVC's queue, collect their results and write the results page."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.claims.claims import plan_runs, read_experiments
from benchmarks.claims.collection import RUN, collect_results, list_finished, read_runs
from benchmarks.claims.page import write_results
from benchmarks.claims.tables import format_spread
from benchmarks.claims.verdicts import predict_range
from phototag.base.errors import InputError
from phototag.experiments.dvc_tools import run_queued
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
    report: Callable[[str], None],
) -> None:
    """Run claims in DVC's queue, collect and report their scores, and write the results page.

    Args:
        root: Root of the project.
        claims: Names of claims.
        photos: Zip or folder of photos (default: data.raw of params.yaml).
        variants: Variants to run; empty for all variants of the claims.
        seeds: Seeds; one run per variant and seed.
        jobs: Number of experiments that run at the same time.
        only_missing: Skip runs that have a row in runs.csv.
        report: Receives the scores next to the tracked ones, also if a run failed.

    Raises:
        InputError: A name is unknown, or a run failed.
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
        run_queued(root, {run.name: run.overrides for run in runs}, jobs)
    except InputError as error:  # raised after the results of the other runs are collected
        failure = error
    report(compare_with_tracked(collect_results(root, runs), tracked))
    if failure:
        raise failure
    write_results(root, experiments)


def update_results(root: Path) -> None:
    """Collect the results of DVC's finished experiments and write the results page."""
    experiments = read_experiments()
    collect_results(root, list_finished(root, experiments))
    write_results(root, experiments)


def compare_with_tracked(rows: pd.DataFrame, tracked: pd.DataFrame) -> str:
    """Describe each run's scores next to the mean, range and prediction interval of runs.csv."""
    lines = []
    for row in rows.to_dict("records"):
        same = tracked[
            (tracked["photos"] == row["photos"]) & (tracked["variant"] == row["variant"])
        ]
        lines.append(f"{row['photos']}-{row['variant']}-s{row['seed']}")
        for key, title in SHOWN.items():
            text = f"  {title:<9} {row[key]:.4f}"
            if len(same):
                text += f"   tracked over {len(same)} seeds: {format_spread(same[key], 4)}"
            if len(same) > 2:  # the interval of two seeds is wider than the range of a score
                low, high = predict_range(same[key])
                within = "within" if low <= row[key] <= high else "NOT within"
                text += f"   {within} {max(low, 0):.3f} to {high:.3f}"
            lines.append(text)
    return "\n".join(lines)
