"""MLflow runs of monitored windows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phototag.tracking.runs import log_folder, log_metrics
from phototag.tracking.store import Store
from phototag.tracking.studies import PARENT_TAG

WINDOW_TAG, VERSION_TAG = "phototag.window", "phototag.version"


def log_window(
    store: Store, name: str, version: str, metrics: Mapping[str, Any], folder: Path
) -> None:
    """Create a run with the metrics and files of a window, below the run of the model version."""
    model = store.client.get_model_version(store.name, version)
    tags = {WINDOW_TAG: name, VERSION_TAG: version, PARENT_TAG: model.run_id}
    run = store.client.create_run(store.experiment_id, run_name=f"monitor {name}", tags=tags)
    log_folder(store, run.info.run_id, folder)
    numbers = {key: value for key, value in metrics.items() if not isinstance(value, str)}
    log_metrics(store, run.info.run_id, numbers, model_id=model.source.rpartition("/")[2])
    store.client.set_terminated(run.info.run_id, "FINISHED")
