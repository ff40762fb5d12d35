"""What a run records: epochs, scores, data, reports."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

from phototag.metrics.metrics import kept_epoch
from phototag.tracking.store import Store


@dataclass(frozen=True)
class DataInput:
    """What a run was trained on.

    Attributes:
        source: Where the photos come from.
        fingerprint: Hash of files, decisions and labels.
        counts: Split -> `photos`, how many there are, and `labels`, how many have each; and
            `known`, for how many each is known, where some are not.
    """

    source: str
    fingerprint: str
    counts: Mapping[str, Mapping[str, Any]]


def log_epoch(store: Store, run_id: str, record: Mapping[Any, float], timestamp: int) -> None:
    """Log one epoch's record in one call; the epoch is the step.

    Args:
        store: Where.
        run_id: The run.
        record: `epoch` and that epoch's metrics.
        timestamp: Milliseconds since 1970.
    """
    step = int(record["epoch"])
    entries = [
        Metric(name, float(value), timestamp, step)
        for name, value in record.items()
        if name != "epoch"
    ]
    store.client.log_batch(run_id, metrics=entries)


def log_best(store: Store, run_id: str, history: Sequence[Mapping[Any, Any]]) -> None:
    """Log the metrics of the epoch whose weights are kept as `best_...`."""
    best = kept_epoch(history)
    now = time.time_ns() // 1_000_000
    entries = [
        Metric(f"best_{name}", float(best[name]), now, 0)
        for name in ("epoch", "val_loss", "f1_micro", "f1_macro", "mAP")
        if name in best
    ]
    store.client.log_batch(run_id, metrics=entries)


def log_scores(store: Store, run_id: str, scores: Mapping[str, float]) -> None:
    """Log final scores as `test_...` metrics.

    Of one run evaluated again, with other thresholds, the latest scores are shown.
    """
    now = time.time_ns() // 1_000_000
    shown = store.client.get_run(run_id).data.metrics
    values = {f"test_{name}": float(value) for name, value in scores.items()}
    # At one timestamp MLflow would show the larger of two values, not the later one.
    entries = [Metric(k, value, now, 0) for k, value in values.items() if shown.get(k) != value]
    store.client.log_batch(run_id, metrics=entries)


def log_data(store: Store, run_id: str, data: DataInput) -> None:
    """Log the data set as the run's input, split by split."""
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
    """Log a folder of reports as artifacts, under its own name."""
    store.client.log_artifacts(run_id, str(folder), folder.name)
