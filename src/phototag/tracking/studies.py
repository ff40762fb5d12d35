"""MLflow runs of a study: its parent run, and the arrays that its trials log."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phototag.tracking.provenance import name_process
from phototag.tracking.runs import (
    EXP_TAG,
    PROCESS_TAG,
    Training,
    create_run,
    find_runs,
    log_folder,
    log_metrics,
)
from phototag.tracking.store import Store

PARENT_TAG = "mlflow.parentRunId"  # MLflow shows runs that have this tag below their parent run
ARRAYS = "val.npz"


def open_parent(store: Store, name: str, params: Mapping[str, Any]) -> str:
    """Return the id of the parent run of a study. Create the run if it does not exist."""
    runs = find_runs(store, name)
    if runs:
        run_id = str(runs[-1].info.run_id)
        # Otherwise, a trial would mark the run as KILLED, because the tagged process has died.
        store.client.set_tag(run_id, PROCESS_TAG, name_process())
        store.client.update_run(run_id, "RUNNING")
        return run_id
    return create_run(store, Training(name, params, exp_name=name))


def close_parent(
    store: Store, run_id: str, metrics: Mapping[str, float], folder: Path, others: Sequence[str]
) -> None:
    """Log the metrics and reports of a study to its parent run, and end this run.

    `others` are the names of DVC experiments that are not trials, such as the evaluated winner.
    The MLflow runs of these experiments also become child runs of the parent run.
    """
    for name in others:
        query = f"tags.`{EXP_TAG}` = '{name}'"
        for run in store.client.search_runs([store.experiment_id], query):
            store.client.set_tag(run.info.run_id, PARENT_TAG, run_id)
    log_folder(store, run_id, folder)
    log_metrics(store, run_id, metrics)
    store.client.set_terminated(run_id, "FINISHED")


def log_arrays(store: Store, run_id: str, **arrays: np.ndarray) -> None:
    """Log arrays to a run, as one artifact. The keyword of each argument is the array's name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, ARRAYS)
        np.savez_compressed(path, allow_pickle=False, **arrays)
        store.client.log_artifact(run_id, str(path))


def read_arrays(store: Store, run_id: str) -> dict[str, np.ndarray]:
    """Return the arrays that `log_arrays` logged, as a mapping from names to arrays."""
    with tempfile.TemporaryDirectory() as folder:
        path = store.client.download_artifacts(run_id, ARRAYS, folder)
        with np.load(path) as arrays:
            return dict(arrays)
