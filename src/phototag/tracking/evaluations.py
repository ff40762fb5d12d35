"""Scores and reports of an evaluation in the MLflow run of the training."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from mlflow.entities import Run

from phototag.metrics.selection import find_evaluated
from phototag.tracking.runs import (
    Training,
    find_or_rebuild_run,
    find_run,
    find_runs,
    has_evaluation_params,
    log_folder,
    log_metrics,
    update_description,
)
from phototag.tracking.store import FAILURES, Store, describe_failure


def record_evaluation(
    store: Store,
    training: Training,
    history: pd.DataFrame,
    scores: Mapping[str, float],
    reports: Path,
) -> None:
    """Log the scores and reports of an evaluation, or print a warning if the store fails.

    If the training has no MLflow run, the run is created from the training history.
    """
    try:
        run_id = find_or_rebuild_run(store, training, history)
        log_evaluation(store, run_id, scores, reports)
    except FAILURES as error:
        print(
            f"warning: {describe_failure(error, store.uri)}; the results are in {reports}: run "
            "`phototag sync` later to log them to MLflow",
            file=sys.stderr,
        )


def log_missing_scores(
    store: Store, run_id: str, scores: Mapping[str, float], reports: Path
) -> None:
    """Log the scores and reports of an evaluation if the run has no scores."""
    logged = store.client.get_run(run_id).data.metrics
    if not {name_score(name) for name in scores} <= logged.keys():
        log_evaluation(store, run_id, scores, reports)


def log_evaluation(store: Store, run_id: str, scores: Mapping[str, float], reports: Path) -> None:
    """Log the scores and reports of an evaluation; `reports` may be missing."""
    if reports.exists():
        log_folder(store, run_id, reports)
    # Scores are logged last, because `phototag sync` regards a run with scores as complete.
    log_metrics(store, run_id, {name_score(name): value for name, value in scores.items()})
    update_description(store, run_id)


def find_complete_run(
    store: Store, training: Training, scores: Mapping[str, float], is_current: bool
) -> Run | None:
    """Return a run of a training and DVC experiment that has all scores, or None.

    Any run of the training suffices outside DVC experiments. If the results are those of the
    working tree (`is_current`), the newest run must have the scores: if a training was repeated,
    DVC did not repeat its evaluation, which has the same results.
    """
    runs = find_runs(store, training.key, training.exp_name or None)
    if scores:
        runs = [run for run in runs if has_evaluation_params(run, training)]
    metrics = {name_score(name) for name in scores} or {"best_val_loss"}
    newest = find_run(store, training) if is_current else None
    if newest and not metrics <= newest.data.metrics.keys():
        return None
    return next((run for run in runs if metrics <= run.data.metrics.keys()), None)


def link_scores(
    store: Store, run_id: str, model_uri: str, scores: Mapping[str, float], split: str
) -> None:
    """Log scores to a run again, as scores of an MLflow model on the dataset of a split.

    MLflow's pages of models and versions show the datasets of metrics that are linked in this way.
    Nothing is logged if the model has such metrics. `model_uri` is the source of a version.
    """
    model_id = model_uri.rpartition("/")[2]
    if any(metric.dataset_name for metric in store.client.get_logged_model(model_id).metrics):
        return
    inputs = store.client.get_run(run_id).inputs.dataset_inputs
    datasets = (each.dataset for each in inputs if each.dataset.name == split)
    values = {name_score(name): value for name, value in scores.items()}
    log_metrics(store, run_id, values, model_id=model_id, dataset=next(datasets, None))


def name_score(name: str) -> str:
    """Return the MLflow name of a score in metrics.json, such as `test_loss` for `loss`."""
    return f"test_{name}" if find_evaluated([name]) == "test" else name
