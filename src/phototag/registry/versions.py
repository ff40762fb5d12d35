"""Model versions in the MLflow Model Registry.

The alias `challenger` points to the version that was registered last. A version becomes the
`champion` if it beats the current champion (see `challenges`), or if a user makes it the champion
with `phototag promote` or `phototag rollback`. Each decision about a version is stored in a tag of
this version. `phototag history` lists all decisions.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from phototag.base.errors import InputError
from phototag.base.files import content_key
from phototag.dataset.dataset import Dataset, fingerprint, join_datasets
from phototag.evaluation.targets import name_labels
from phototag.metrics.classification import MIN_POSITIVES
from phototag.metrics.selection import CROSS_VALIDATION, describe_evaluated, find_evaluated
from phototag.network.weights import Metadata, describe_origin
from phototag.pages.escaping import escape_markdown
from phototag.registry.comparison import Contestant, rename_labels
from phototag.registry.cross_validated import load_predictions
from phototag.registry.decision import make_decision
from phototag.registry.lookup import (
    DECISION_TAG,
    KEY_TAG,
    WEIGHTS_TAG,
    get_version,
    list_versions,
)
from phototag.registry.photos import write_ids
from phototag.serving.pyfunc import log_model
from phototag.tracking.store import Store

DIGEST_TAG, THRESHOLDS_TAG = "model_digest", "thresholds"
MODEL_FILE, THRESHOLDS_FILE = "model.safetensors", "thresholds.json"
# Versions of earlier releases do not have these files. Only versions that were evaluated by
# cross-validation have the second file.
PHOTOS_FILE, CROSS_VALIDATION_FILE = "photos.txt", "cross_validation.npz"
MAX_NAMES = 5  # largest number of labels that a sentence names
# MLflow's error codes for a missing model or version.
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def register_model(
    store: Store,
    run_id: str,
    model: Contestant,
    photos: Iterable[str],
    tags: Mapping[str, str],
    description: str,
    reference: Path | None = None,
) -> str:
    """Register a model as the challenger, and return the number of its version.

    If there is already a version with the same model digest and its files, it becomes the
    challenger and no new version is created. `photos` are the ids returned by `list_ids`, `tags`
    are the tags returned by `describe_model`, and `reference` is the file written by the stage of
    this name.
    """
    client, digest = store.client, tags[DIGEST_TAG]
    with store.lock:
        query = f"name = '{store.name}' and tags.{DIGEST_TAG} = '{digest}'"
        found = [str(each.version) for each in client.search_model_versions(query)]
        version = next((number for number in found if has_files(store, number)), "")
        if not version:
            with mlflow.start_run(run_id=run_id), TemporaryDirectory() as folder:
                extra = {"photos": Path(folder, PHOTOS_FILE)}
                write_ids(extra["photos"], photos)
                if reference is not None:
                    extra["reference"] = reference
                if model.cross_validated is not None:
                    extra["cross_validation"] = Path(folder, CROSS_VALIDATION_FILE)
                    model.cross_validated.save(extra["cross_validation"])
                info = log_model(*model.files, store.name, extra)
            version = str(info.registered_model_version)
            client.update_model_version(store.name, version, description)
            values = {**tags, WEIGHTS_TAG: content_key(None, model.files)}
            # The digest is set last: if the loop is interrupted, the next call registers again.
            del values[DIGEST_TAG]
            for name, value in {**values, DIGEST_TAG: digest}.items():
                client.set_model_version_tag(store.name, version, name, value)
        client.set_registered_model_alias(store.name, "challenger", version)
    return version


def describe_model(
    metadata: Metadata,
    scores: Mapping[str, float],
    thresholds: Mapping[str, float],
    model_digest: str,
    data_fingerprint: str,
    datasets: Mapping[str, Dataset],
) -> dict[str, str]:
    """Return the tags of a version, with the fingerprint of the photos of `scores`."""
    evaluated_on = find_evaluated(scores)
    return {
        "labels": ", ".join(metadata.labels),
        THRESHOLDS_TAG: json.dumps(thresholds),
        KEY_TAG: metadata.content_key,
        DIGEST_TAG: model_digest,
        "data_fingerprint": data_fingerprint,
        f"{evaluated_on.replace('-', '_')}_fingerprint": fingerprint(
            take_evaluated(datasets, evaluated_on)
        ),
        **{f"{name}_photos": str(len(photos)) for name, photos in datasets.items()},
        **{name: f"{value:.8g}" for name, value in scores.items()},
    }


def take_evaluated(datasets: Mapping[str, Dataset], evaluated_on: str) -> Dataset:
    """Return the photos on which a model is evaluated: test, val, or train and val together."""
    if evaluated_on == CROSS_VALIDATION:
        return join_datasets([datasets["train"], datasets["val"]])
    return datasets[evaluated_on]


def write_description(
    scores: pd.DataFrame, metadata: Metadata, photos: Dataset, evaluated_on: str = "test"
) -> str:
    """Return a description of a version in Markdown, with a table of its scores.

    `photos` are the evaluated photos. The description names the labels with too few positives.
    """
    few = np.array(photos.labels)[(photos.targets > 0).sum(axis=0) < MIN_POSITIVES].tolist()
    facts = describe_origin(metadata)
    if few:
        facts += f" Labels with too few positives to judge: {name_labels(few)}."
    table = scores[scores["predictor"] == "model"].dropna(subset="value")
    rows = [
        f"| {row.metric} | {row.value:.4f} | {row.low:.4f} to {row.high:.4f} |"
        for row in table.itertuples()
    ]
    return "\n".join(
        [
            f"Predicts {len(metadata.labels)} labels, which the tag `labels` lists. Input: photos "
            "as base64 strings, data URLs or bytes; each photo is resized to "
            f"{metadata.size} x {metadata.size} pixels. Weights: best row {metadata.epoch} of the "
            f"training history, with a val_loss of {metadata.val_loss:.4f}.",
            "",
            escape_markdown(facts),
            "",
            f"| metric {describe_evaluated(evaluated_on)} | value | 95% interval |",
            "|---|---|---|",
            *rows,
        ]
    )


def has_files(store: Store, version: str) -> bool:
    """Return whether a version and its model files exist. MLflow keeps versions without files."""
    try:
        found = mlflow.artifacts.list_artifacts(f"models:/{store.name}/{version}/artifacts")
    except MlflowException as error:
        if error.error_code in ABSENT:
            return False
        raise
    return {Path(file.path).name for file in found} >= {MODEL_FILE, THRESHOLDS_FILE}


def fetch_files(store: Store, version: str, folder: str) -> tuple[Contestant, Path]:
    """Download a version into a folder, and return its model and the path of its photo list."""
    found = download_version(store, version, folder)
    predictions = load_predictions(found / CROSS_VALIDATION_FILE)
    files = found / MODEL_FILE, found / THRESHOLDS_FILE
    return Contestant(files, predictions), found / PHOTOS_FILE


def download_version(store: Store, version: int | str, folder: str) -> Path:
    """Download the files of a version into a folder, and return the folder that contains them."""
    uri = f"models:/{store.name}/{version}/artifacts"
    return Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))


def list_labels(version: ModelVersion) -> list[str]:
    """Return the labels that a version predicts."""
    return list(json.loads(version.tags.get(THRESHOLDS_TAG, "{}")))


def describe_label_changes(
    new: ModelVersion, old: ModelVersion, renamed: Mapping[str, str] = MappingProxyType({})
) -> str:
    """Return the labels that only one of two versions has, such as "added: cat; removed: dog".

    `renamed` maps labels of the old version to present names. The result is an empty string if both
    versions predict the same labels.
    """
    labels, former = list_labels(new), list_labels(old)
    names = rename_labels(former, renamed)
    changes = {
        "added": [label for label in labels if label not in names],
        "removed": [label for label in names if label not in labels],
        "renamed": [f"{a} to {b}" for a, b in zip(former, names, strict=True) if a != b],
    }
    return "; ".join(
        f"{kind}: {name_labels(names, MAX_NAMES)}" for kind, names in changes.items() if names
    )


def apply_decision(store: Store, decision: dict[str, Any]) -> dict[str, Any]:
    """Store a decision in a tag of its version, and return it. Update the alias if necessary."""
    version = str(decision["version"])
    tag = f"{DECISION_TAG}{decision['time']}"
    store.client.set_model_version_tag(store.name, version, tag, json.dumps(decision))
    if decision["champion"]:
        store.client.set_registered_model_alias(store.name, "champion", version)
    return decision


def find_champion(store: Store) -> int | None:
    """Return the number of the champion's version, or None if there is no champion."""
    for model in store.client.search_registered_models(f"name = '{store.name}'"):
        if "champion" in model.aliases:
            return int(model.aliases["champion"])
    return None


def find_replaced(store: Store, version: str) -> int | None:
    """Return the champion that a version replaced last, or None. Rollbacks are ignored."""
    for decision in reversed(read_history(store)):
        previous = decision["previous_champion"]
        appointed = decision["champion"] and decision["version"] == int(version)
        if appointed and decision["kind"] != "rollback" and previous not in (None, int(version)):
            return int(previous)
    return None


def read_history(store: Store) -> list[dict[str, Any]]:
    """Return all decisions about the champion, oldest first, with their `time` in UTC."""
    versions = list_versions(store)
    decisions = [decision for version in versions for decision in read_decisions(version)]
    return sorted(decisions, key=lambda decision: str(decision["time"]))


def describe_registry(store: Store) -> list[str]:
    """Return one line on deleted versions, if there are any, and one line on the champion."""
    versions = list_versions(store)
    existing = {int(version.version) for version in versions}
    deleted = sorted(set(range(1, max(existing, default=0))) - existing)
    lines = [f"deleted in MLflow: version {', '.join(map(str, deleted))}"] if deleted else []
    champion = find_champion(store)
    missing = "there is no champion: run `phototag promote VERSION`"
    shown = f"the champion is version {champion}, served as models:/{store.name}@champion"
    return [*lines, shown if champion else missing]


def read_decisions(version: ModelVersion) -> list[dict[str, Any]]:
    """Return the decisions about a version, each with its `time` in UTC."""
    return [
        {"time": name.removeprefix(DECISION_TAG), **json.loads(value)}
        for name, value in version.tags.items()
        if name.startswith(DECISION_TAG)
    ]


def promote(
    store: Store, version: str, reason: str, new_labels: bool = False, kind: str = "promote"
) -> dict[str, Any]:
    """Make a version the champion without a comparison, and return the decision.

    Raises:
        InputError: The version does not exist, its files were deleted, or its labels differ from
            those of the champion and `new_labels` is false.
    """
    with store.lock:
        if not has_files(store, version):
            raise InputError(
                f"version {version} of the model {store.name} does not exist, or its files were "
                "deleted: run `phototag history` to list the versions, and pass another one to "
                "`phototag promote`"
            )
        previous = find_champion(store)
        if previous and not new_labels:
            own, old = (get_version(store, n) for n in (version, previous))
            if changes := describe_label_changes(own, old):
                raise InputError(
                    f"version {version} predicts other labels than the champion, version "
                    f"{previous} ({changes}): add --new-labels to serve it nevertheless"
                )
        decision = make_decision(store.name, kind, int(version), previous, True, reason)
        return apply_decision(store, decision)


def roll_back(store: Store, reason: str) -> dict[str, Any]:
    """Restore the previous champion, and return the decision.

    A second rollback restores the champion that was in use before the previous one.

    Raises:
        InputError: There is no champion, there is no previous champion, or the previous champion
            was deleted from the registry.
    """
    with store.lock:
        champion = find_champion(store)
        if champion is None:
            raise InputError("there is no champion to roll back from: run `dvc repro` to get one")
        previous = find_replaced(store, str(champion))
        if previous is not None:
            return promote(store, str(previous), reason, True, "rollback")
        raise InputError(
            f"version {champion} is the first champion, so there is no previous one: run "
            "`phototag promote` to choose another version"
        )
