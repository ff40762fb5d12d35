"""Registration of a trained and evaluated model, and its comparison with the champion."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from phototag.base.files import file_digest, read_json
from phototag.dataset.dataset import describe_splits, read_datasets
from phototag.network.weights import read_metadata
from phototag.registry.challenges import challenge_champion
from phototag.registry.lookup import get_version
from phototag.registry.photos import list_ids
from phototag.registry.report import write_report
from phototag.registry.versions import (
    describe_model,
    evaluated_split,
    register_model,
    write_description,
)
from phototag.serving.pyfunc import digest_model
from phototag.tracking.evaluations import link_scores, log_missing_scores
from phototag.tracking.runs import Training, find_or_rebuild_run, log_folder
from phototag.tracking.store import Store


@dataclass(frozen=True)
class Results:
    """Files that describe a trained and evaluated model.

    All files in the folder of `metrics` are logged to the MLflow run. `scores` is the table of the
    scores with their confidence intervals.
    """

    images: Path
    manifest: Path
    splits: Path
    history: Path
    model: Path
    thresholds: Path
    metrics: Path
    scores: Path


def register_results(
    store: Store, results: Results, training: Training, resamples: int, seed: int, reports: Path
) -> dict[str, Any]:
    """Register a model as challenger, compare it with the champion, and return the decision.

    If the evaluation did not run because DVC restored its results, the scores are added to the
    MLflow run.

    Args:
        store: Store with the registry.
        results: Files of the model.
        training: Training of the model, without its splits.
        resamples: Number of bootstrap resamples of the comparison.
        seed: Seed of the resamples.
        reports: Folder to which the page with the decision is written.
    """
    files = results.model, results.thresholds
    scores = read_json(results.metrics)
    metadata = read_metadata(results.model)
    datasets = read_datasets(results.images, results.manifest, results.splits)
    split = evaluated_split(datasets)
    tags = describe_model(
        metadata,
        scores,
        read_json(results.thresholds)["thresholds"],
        digest_model(*files),
        file_digest(results.manifest)[:16],
        datasets,
    )
    training = replace(training, splits=describe_splits(datasets))
    run_id = find_or_rebuild_run(store, training, pd.read_csv(results.history))
    ended = store.client.get_run(run_id).info.end_time
    log_missing_scores(store, run_id, scores, results.metrics.parent)
    version = register_model(
        store,
        run_id,
        files,
        list_ids(datasets),
        tags,
        write_description(pd.read_csv(results.scores), metadata, split),
    )
    # Registering reopens the run, which must not change its duration.
    store.client.set_terminated(run_id, "FINISHED", ended)
    link_scores(store, run_id, get_version(store, version).source, scores, split)
    decision, comparison = challenge_champion(store, version, files, datasets, resamples, seed)
    write_report(reports, store, decision, comparison)
    log_folder(store, run_id, reports)
    return decision
