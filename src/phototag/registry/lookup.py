"""Versions of the project's model in the registry, found without importing PyTorch."""

from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from phototag.base.files import content_key
from phototag.tracking.store import Store

KEY_TAG, WEIGHTS_TAG = "content_key", "weights_digest"
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
