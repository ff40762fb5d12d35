"""Changes of the registry that were made in MLflow, after the decisions about the champion."""

from collections.abc import Mapping
from typing import Any

from phototag.registry.decision import MODEL_NAME
from phototag.registry.versions import find_champion, read_history
from phototag.tracking.store import Store


def find_deleted_versions(store: Store) -> list[int]:
    """Return the numbers of deleted versions, which MLflow does not assign again."""
    versions = store.client.search_model_versions(f"name = '{MODEL_NAME}'")
    existing = {int(version.version) for version in versions}
    previous = {decision["previous_champion"] for decision in read_history(store)} - {None}
    return sorted({*range(1, max(existing, default=0)), *previous} - existing)


def describe_champion(store: Store) -> str:
    """Return one line on the current champion, or on how to choose one if there is none."""
    champion = find_champion(store.client)
    if champion:
        return f"the champion is version {champion.version}"
    return (
        "there is no champion, because its version or alias was deleted in MLflow: run "
        "`phototag promote VERSION`"
    )


def describe_changes(store: Store, decision: Mapping[str, Any]) -> list[str]:
    """Return one line for each change in MLflow that contradicts a decision."""
    number = decision["version"]
    versions = store.client.search_model_versions(f"name = '{MODEL_NAME}'")
    if number not in {int(version.version) for version in versions}:
        return [f"version {number} was deleted in MLflow, or was registered in another store"]
    champion = find_champion(store.client)
    if decision["champion"] and (champion is None or int(champion.version) != number):
        return [describe_champion(store)]
    return []
