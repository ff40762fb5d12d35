"""The MLflow store: `mlflow.db` in the repository's root with its files in `mlartifacts/`.

`MLFLOW_TRACKING_URI` names another one.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

EXPERIMENT = "phototag"
NOTE_TAG = "mlflow.note.content"
VIEW = "phototag"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
# By default MLflow's table of runs shows no param and no metric.
COLUMNS = (
    "attributes.`Created`",
    "metrics.`best_val_loss`",
    "metrics.`test_f1_micro`",
    "metrics.`test_f1_macro`",
    "params.`lr`",
    "params.`weight_decay`",
    "params.`optimizer`",
)
DESCRIPTION = """Every training of this repository, one run each: `dvc repro` and DVC experiments.

- `val_loss`, `f1_micro`, `f1_macro`: on val at threshold 0.5, epoch by epoch; `best_...` are of the
  epoch whose weights are kept.
- `test_...`: on test, once, at the thresholds chosen on val.
- Artifacts: `evaluate/report.html` (start here), figures and tables, the registered model.
- `phototag.content_key` is a hash of the params, data and code that a training depends on; two runs
  of one key trained the same thing.
"""


@dataclass(frozen=True)
class Store:
    """An MLflow store and the experiment in it.

    Attributes:
        client: Speaks to the store.
        experiment_id: Of the experiment `phototag`.
        lock: Held for changes that several processes must make one after the other.
    """

    client: MlflowClient
    experiment_id: str
    lock: FileLock


def project_root() -> Path:
    """Return the main checkout, also from within a queued or --temp experiment's copy."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd()).resolve()


def embedded_uri() -> str:
    """Return the address of the store in the repository's root."""
    return f"sqlite:///{project_root() / 'mlflow.db'}"


def store_uri() -> str:
    """Return the address of the store: `MLFLOW_TRACKING_URI`, or the embedded one."""
    return os.environ.get("MLFLOW_TRACKING_URI") or embedded_uri()


def connect() -> Store:
    """Open the store, and make it and its experiment where they are missing.

    A lock lets only one process at a time do so: several that migrate one fresh SQLite file at
    once all fail. The experiment's artifacts get an absolute place under the root, because a
    relative one would lie in the copy that DVC deletes after an experiment.
    """
    root = project_root()
    lock = FileLock(root / ".dvc" / "tmp" / "mlflow.lock")
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    with lock:
        uri = store_uri()
        mlflow.set_tracking_uri(uri)
        client = MlflowClient()
        place = (root / "mlartifacts").as_uri() if uri == embedded_uri() else None
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            try:
                client.create_experiment(EXPERIMENT, place)
            except MlflowException:
                # On a shared server, another machine may have made it in between.
                if client.get_experiment_by_name(EXPERIMENT) is None:
                    raise
            experiment = client.get_experiment_by_name(EXPERIMENT)
        tags = {NOTE_TAG: DESCRIPTION, VIEW_TAG: json.dumps({"selectedColumns": COLUMNS})}
        for name, value in tags.items():
            if name not in experiment.tags:  # what somebody wrote there stays
                client.set_experiment_tag(experiment.experiment_id, name, value)
        return Store(client, experiment.experiment_id, lock)


def training_view(base: str, experiment_id: str) -> str:
    """Return the address that opens the experiment's runs, with losses, F1 and lr as columns.

    MLflow 3 opens a bare experiment address in its GenAI view, which does not show them.
    """
    options = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    return f"{base}/#/experiments/{experiment_id}/runs?{options}"
