"""Registration of a trained and evaluated model, and its comparison with the champion."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from phototag.base.files import file_digest, read_json
from phototag.dataset.dataset import describe_splits, read_datasets
from phototag.metrics.selection import CROSS_VALIDATION, find_evaluated
from phototag.network.weights import read_metadata
from phototag.registry.card import render_card
from phototag.registry.challenges import challenge_champion
from phototag.registry.comparison import Contestant
from phototag.registry.cross_validated import read_evaluation
from phototag.registry.lookup import attach_card, get_version
from phototag.registry.photos import list_ids
from phototag.registry.report import write_report
from phototag.registry.versions import (
    describe_model,
    register_model,
    take_evaluated,
    write_description,
)
from phototag.serving.pyfunc import digest_model
from phototag.tracking.evaluations import link_scores, log_missing_scores
from phototag.tracking.runs import Training, find_or_rebuild_run, log_folder, log_splits
from phototag.tracking.store import Store


def register_results(
    store: Store,
    paths: Mapping[str, Path],
    training: Training,
    resamples: int,
    seed: int,
    reports: Path,
    license_name: str | None = None,
) -> dict[str, Any]:
    """Register a model as challenger, compare it with the champion, and return the decision.

    If the evaluation did not run because DVC restored its results, the scores are added to the
    MLflow run.

    Args:
        store: Store with the registry.
        paths: Files of the model: `images` (packed photos), `features` (cached), `manifest`,
            `splits`, `history` (table with one row per epoch), `model`, `reference` (for
            monitoring), `thresholds`, `metrics`, `scores`, `per_label` and `slices` (tables with
            intervals), `predictions` (table with one row per photo and label) and `summary` (of
            the stage `resize`). All files in the folder of `metrics` are logged to the MLflow run.
        training: Training of the model, without its splits.
        resamples: Number of bootstrap resamples of the comparison.
        seed: Seed of the resamples.
        reports: Folder to which the page with the decision is written.
        license_name: Licence of the photos and labels, or None if it is not known.
    """
    files = paths["model"], paths["thresholds"]
    scores = read_json(paths["metrics"])
    metadata = read_metadata(paths["model"])
    datasets = read_datasets(paths["images"], paths["manifest"], paths["splits"])
    evaluated_on = find_evaluated(scores)
    photos = take_evaluated(datasets, evaluated_on)
    nested = evaluated_on == CROSS_VALIDATION
    predictions = read_evaluation(paths["predictions"], photos) if nested else None
    model = Contestant(files, predictions)
    tags = describe_model(
        metadata,
        scores,
        read_json(paths["thresholds"])["thresholds"],
        digest_model(*files),
        file_digest(paths["manifest"])[:16],
        datasets,
    )
    training = replace(training, splits=describe_splits(datasets))
    run_id = find_or_rebuild_run(store, training, pd.read_csv(paths["history"]))
    ended = store.client.get_run(run_id).info.end_time
    log_missing_scores(store, run_id, scores, paths["metrics"].parent)
    version = register_model(
        store,
        run_id,
        model,
        list_ids(datasets),
        tags,
        write_description(
            pd.read_csv(paths["scores"]),
            metadata,
            photos,
            evaluated_on,
        ),
        paths["reference"],
    )
    attach_card(store, run_id, version, render_card(paths, store.name, license_name, version))
    # Registering reopens the run, which must not change its duration.
    store.client.set_terminated(run_id, "FINISHED", ended)
    if nested:
        log_splits(store, run_id, describe_splits({evaluated_on: photos}))
    link_scores(store, run_id, get_version(store, version).source, scores, evaluated_on)
    renamed = read_json(paths["summary"])["renamed_labels"]
    decision, comparison = challenge_champion(
        store, version, model, datasets, resamples, seed, paths["features"], renamed
    )
    write_report(reports, store, decision, comparison, renamed)
    log_folder(store, run_id, reports)
    return decision
