"""Entries of a run: epochs, scores, datasets and reports."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

from phototag.metrics.selection import best_record, step_number
from phototag.tracking.store import Store


@dataclass(frozen=True)
class DataInput:
    """Dataset that a run was trained on.

    Attributes:
        source: Path of the manifest.
        fingerprint: Hash of files, decisions and labels.
        counts: For each split the number of `photos`, the number of positives of each `labels`
            entry, and, if some labels are unknown, the number of photos with a `known` value.
    """

    source: str
    fingerprint: str
    counts: Mapping[str, Mapping[str, Any]]


def log_epoch(store: Store, run_id: str, record: Mapping[Any, float]) -> None:
    """Log the metrics of one epoch, or of one L2 strength of a linear probe.

    Args:
        store: MLflow store.
        run_id: Run to log to.
        record: Number of the epoch (`epoch`) or of the strength (`step`), and metrics.
    """
    numbers = {"epoch", "step", "best_epoch", "best_step"}
    values = {name: value for name, value in record.items() if name not in numbers}
    _log_metrics(store, run_id, values, step_number(record))


def log_best(store: Store, run_id: str, history: Sequence[Mapping[Any, Any]]) -> None:
    """Log the metrics of the best epoch, whose weights are saved, as `best_*`."""
    best = best_record(history)
    names = ("epoch", "step", "l2", "val_loss", "f1_micro", "f1_macro", "mAP")
    _log_metrics(store, run_id, {f"best_{name}": best[name] for name in names if name in best})


def log_scores(store: Store, run_id: str, scores: Mapping[str, float]) -> None:
    """Log the scores of an evaluation as `test_*`; MLflow shows the latest evaluation."""
    _log_metrics(store, run_id, {f"test_{name}": value for name, value in scores.items()})


def _log_metrics(store: Store, run_id: str, values: Mapping[str, float], step: int = 0) -> None:
    now = time.time_ns() // 1_000_000
    metrics = [Metric(name, float(value), now, step) for name, value in values.items()]
    store.client.log_batch(run_id, metrics=metrics)


def log_data(store: Store, run_id: str, data: DataInput) -> None:
    """Log the dataset as inputs of the run, one for each split."""
    for split, profile in data.counts.items():
        dataset = Dataset(
            name=data.source[-500:],
            digest=data.fingerprint,
            source_type="local",
            source=json.dumps({"uri": data.source}),
            profile=json.dumps(profile),
        )
        tag = InputTag("mlflow.data.context", split)
        store.client.log_inputs(run_id, [DatasetInput(dataset, [tag])])


def log_folder(store: Store, run_id: str, folder: Path) -> None:
    """Log a folder of reports as artifacts under the folder's name."""
    store.client.log_artifacts(run_id, str(folder), folder.name)
