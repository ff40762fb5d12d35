"""Versions of the project's model in the registry, found without importing PyTorch."""

from pathlib import Path

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from phototag.base.errors import InputError
from phototag.base.files import content_key
from phototag.tracking.store import Store

KEY_TAG, WEIGHTS_TAG, CARD_TAG = "content_key", "weights_digest", "model_card"
DECISION_TAG = "decision."  # prefix of the tag, before the time of the decision; its value is JSON


def has_version(store: Store, key: str, files: tuple[Path, Path] | None = None) -> bool:
    """Return whether a version has a content key and, if given, these weights and thresholds.

    Versions without a decision are ignored, because their registration was interrupted.
    """
    digest = content_key(None, files) if files else ""
    return any(
        version.tags.get(KEY_TAG) == key
        and digest in ("", version.tags.get(WEIGHTS_TAG))
        and any(name.startswith(DECISION_TAG) for name in version.tags)
        for version in list_versions(store)
    )


def list_versions(store: Store) -> list[ModelVersion]:
    """Return all versions of the project's model."""
    return list(store.client.search_model_versions(f"name = '{store.name}'"))


def get_version(store: Store, number: int | str) -> ModelVersion:
    """Return one version of the project's model."""
    return store.client.get_model_version(store.name, str(number))


def weights_digest(version: ModelVersion) -> str:
    """Return the digest of a version's weights and thresholds (default: the version number)."""
    return str(version.tags.get(WEIGHTS_TAG) or version.version)


def attach_card(store: Store, run_id: str, version: str, card: str) -> None:
    """Log the model card of a version to an MLflow run, and store its address in a tag."""
    path = f"cards/version-{version}.md"
    store.client.log_text(run_id, card, path)
    store.client.set_model_version_tag(store.name, version, CARD_TAG, f"runs:/{run_id}/{path}")


def fetch_card(store: Store, version: str) -> str:
    """Return the model card of a version.

    Raises:
        InputError: The version does not exist, or has no model card.
    """
    try:
        return str(mlflow.artifacts.load_text(get_version(store, version).tags[CARD_TAG]))
    except (KeyError, MlflowException) as error:
        reason = "has no model card" if isinstance(error, KeyError) else "cannot be read"
        raise InputError(
            f"version {version} of the model {store.name} {reason}: run `phototag history` to list "
            "the versions, or omit the version to describe the model of the last `dvc repro`"
        ) from None
