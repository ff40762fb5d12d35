"""Versions of the model in the MLflow registry: registered, described and fetched.

The alias `challenger` names the version registered last. `gate` moves the alias `champion`.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from phototag.base.errors import InputError
from phototag.base.files import content_key
from phototag.network.weights import Metadata, describe_origin
from phototag.pages.escaping import escape_markdown
from phototag.registry.decision import MODEL_NAME
from phototag.serving.pyfunc import log_model
from phototag.tracking.store import Store

PHOTOS_TAG, WEIGHTS_TAG, DIGEST_TAG = "test_fingerprint", "weights_digest", "model_digest"
MAX_LABELS = 50  # in a description


def register_model(
    store: Store,
    run_id: str,
    model_file: Path,
    thresholds_file: Path,
    tags: Mapping[str, str],
    description: str,
) -> str:
    """Register the model as challenger and return its version.

    A model whose digest is registered already gets no new version.

    Args:
        store: MLflow store.
        run_id: Id of the run that trained the model.
        model_file: Safetensors file.
        thresholds_file: JSON file with temperature and thresholds.
        tags: Tags returned by `describe_model`.
        description: Description in Markdown.
    """
    client, digest = store.client, tags[DIGEST_TAG]
    with store.lock:
        found = client.search_model_versions(
            f"name = '{MODEL_NAME}' and tags.{DIGEST_TAG} = '{digest}'"
        )
        if found:
            version = str(found[0].version)
        else:
            with mlflow.start_run(run_id=run_id):
                info = log_model(model_file, thresholds_file, MODEL_NAME)
            version = str(info.registered_model_version)
            client.update_model_version(MODEL_NAME, version, description)
            weights = content_key(None, [model_file, thresholds_file])
            # The digest comes last: a version without it is incomplete and registered again.
            others = {name: value for name, value in tags.items() if name != DIGEST_TAG}
            for name, value in {**others, WEIGHTS_TAG: weights, DIGEST_TAG: digest}.items():
                client.set_model_version_tag(MODEL_NAME, version, name, value)
        client.set_registered_model_alias(MODEL_NAME, "challenger", version)
    return version


def describe_model(
    metadata: Metadata,
    scores: Mapping[str, float],
    thresholds: Mapping[str, float],
    model_digest: str,
    data_fingerprint: str,
    test_fingerprint: str,
) -> dict[str, str]:
    """Return the tags of a version: labels, thresholds, scores, and hashes of model and data."""
    return {
        "labels": ", ".join(metadata.labels),
        "thresholds": json.dumps(
            {name: float(f"{value:.8g}") for name, value in thresholds.items()}
        ),
        "content_key": metadata.content_key,
        DIGEST_TAG: model_digest,
        "data_fingerprint": data_fingerprint,
        PHOTOS_TAG: test_fingerprint,
        **{name: f"{value:.8g}" for name, value in scores.items()},
    }


def write_description(scores: pd.DataFrame, metadata: Metadata) -> str:
    """Return the description of a version in Markdown, with its table of scores.

    Args:
        scores: Contents of scores.csv, written by `evaluate`.
        metadata: Metadata of the model.
    """
    table = scores[scores["predictor"] == "model"].dropna(subset="value")
    columns = (table[name] for name in ("metric", "value", "low", "high"))
    rows = [
        f"| {name} | {value:.4f} | {low:.4f} to {high:.4f} |"
        for name, value, low, high in zip(*columns, strict=True)
    ]
    labels = ", ".join(escape_markdown(label) for label in metadata.labels[:MAX_LABELS])
    more = len(metadata.labels) - MAX_LABELS
    size = metadata.size
    return "\n".join(
        [
            f"Labels photos with {labels}{f' and {more} more' if more > 0 else ''}. Input: photos "
            f"as base64, data URLs or bytes, resized to {size} x {size} pixels. Weights: epoch "
            f"{metadata.epoch}, val loss {metadata.val_loss:.4f}.",
            "",
            escape_markdown(describe_origin(metadata)),
            "",
            "| metric on held-out photos | value | 95% interval |",
            "|---|---|---|",
            *rows,
        ]
    )


def weights_digest(version: ModelVersion) -> str:
    """Return a value that versions with the same weights and thresholds share."""
    return str(version.tags.get(WEIGHTS_TAG) or version.version)


def fetch_files(version: ModelVersion, folder: Path) -> tuple[Path, Path]:
    """Download a version's model file and thresholds file into a folder.

    Raises:
        InputError: The files cannot be downloaded.
    """
    uri, reason = f"models:/{MODEL_NAME}/{version.version}", "they are missing"
    try:
        found = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
        files = found / "artifacts/model.safetensors", found / "artifacts/thresholds.json"
        if all(file.is_file() for file in files):
            return files
    except (MlflowException, OSError) as error:
        reason = type(error).__name__
    raise InputError(f"its files cannot be downloaded ({reason})")
