"""Runs of a hyperparameter search: the parent run of a study, and arrays of its trials."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.artifacts import download_artifacts

from phototag.tracking.records import log_folder
from phototag.tracking.runs import EXP_TAG, create_run, find_runs
from phototag.tracking.store import Store

PARENT_TAG = "mlflow.parentRunId"  # MLflow's pages nest runs by this tag
ARRAYS = "val.npz"


def open_parent(store: Store, name: str, params: Mapping[str, Any]) -> str:
    """Return the id of a study's parent run, which is created if it is missing.

    Args:
        store: MLflow store.
        name: Unique name of the study.
        params: Nested params of the search.
    """
    runs = find_runs(store, name)
    if runs:
        store.client.update_run(runs[-1].info.run_id, "RUNNING")
        return str(runs[-1].info.run_id)
    return create_run(store, name, params, {}, name)


def close_parent(
    store: Store, run_id: str, metrics: Mapping[str, float], folder: Path, others: Sequence[str]
) -> None:
    """Log a study's metrics and reports, and end its parent run.

    Args:
        store: MLflow store.
        run_id: Id of the parent run.
        metrics: Name and value of each metric.
        folder: Folder of reports.
        others: DVC experiments of the study that are not trials; their runs become child runs.
    """
    for name in others:
        query = f"tags.`{EXP_TAG}` = '{name}'"
        for run in store.client.search_runs([store.experiment_id], query):
            store.client.set_tag(run.info.run_id, PARENT_TAG, run_id)
    log_folder(store, run_id, folder)
    for name, value in metrics.items():
        store.client.log_metric(run_id, name, value)
    store.client.set_terminated(run_id, "FINISHED")


def log_arrays(store: Store, run_id: str, **arrays: np.ndarray) -> None:
    """Log named arrays as one artifact of a run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, ARRAYS)
        np.savez_compressed(path, allow_pickle=False, **arrays)
        store.client.log_artifact(run_id, str(path))


def read_arrays(store: Store, run_id: str) -> dict[str, np.ndarray]:
    """Return the arrays logged by `log_arrays`, by name."""
    with tempfile.TemporaryDirectory() as folder:
        path = download_artifacts(
            run_id=run_id, artifact_path=ARRAYS, dst_path=folder, tracking_uri=store.uri
        )
        with np.load(path) as arrays:
            return dict(arrays)
