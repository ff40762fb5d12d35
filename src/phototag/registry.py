"""The MLflow model registry: versions of the model, and which one is the champion."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from phototag.serving import log_model
from phototag.tracking import Store

MODEL_NAME = "phototag"


def register_model(
    store: Store,
    run_id: str,
    model_file: Path,
    thresholds_file: Path,
    scores: Mapping[str, float],
    tags: Mapping[str, str],
) -> dict[str, Any]:
    """Put the model into the registry as challenger; as champion too where it wins.

    It wins when there is no champion, or when its micro F1 is higher on the same photos with the
    same labels (tag `test_fingerprint`). The same model (tag `model_digest`) is registered once.

    Args:
        store: Where.
        run_id: The run that trained it.
        model_file: The safetensors file.
        thresholds_file: JSON, label -> threshold.
        scores: Of `evaluate`; `f1_micro` decides.
        tags: With `model_digest` and `test_fingerprint`.

    Returns:
        name, version, champion (whether it is now), previous_champion and reason.
    """
    client = store.client
    with store.lock:
        version = _find_version(client, tags["model_digest"])
        if version is None:
            version = _create_version(run_id, model_file, thresholds_file)
            score_tags = {name: f"{value:.6f}" for name, value in scores.items()}
            for name, value in {**score_tags, **tags}.items():
                client.set_model_version_tag(MODEL_NAME, version, name, value)
        client.set_registered_model_alias(MODEL_NAME, "challenger", version)

        champion = _find_champion(client)
        wins, reason = _judge(champion, version, scores["f1_micro"], tags["test_fingerprint"])
        if wins:
            client.set_registered_model_alias(MODEL_NAME, "champion", version)
        client.set_model_version_tag(MODEL_NAME, version, "decision", reason)
    return {
        "name": MODEL_NAME,
        "version": int(version),
        "champion": wins,
        "previous_champion": int(champion.version) if champion else None,
        "reason": reason,
    }


def _create_version(run_id: str, model_file: Path, thresholds_file: Path) -> str:
    with mlflow.start_run(run_id=run_id):
        info = log_model(model_file, thresholds_file, MODEL_NAME)
    return str(info.registered_model_version)


def _find_version(client: MlflowClient, digest: str) -> str | None:
    found = client.search_model_versions(
        f"name = '{MODEL_NAME}' and tags.model_digest = '{digest}'"
    )
    return str(found[0].version) if found else None


def _find_champion(client: MlflowClient) -> Any | None:
    try:
        return client.get_model_version_by_alias(MODEL_NAME, "champion")
    except MlflowException:
        return None


def _judge(
    champion: Any | None, version: str, f1_micro: float, fingerprint: str
) -> tuple[bool, str]:
    if champion is None:
        return True, "there was no champion"
    if str(champion.version) == version:
        return True, "it is the champion already"
    rival = f"champion version {champion.version}"
    if champion.tags.get("test_fingerprint") != fingerprint:
        return False, (
            f"{rival} was judged on other photos or labels, so the scores do not compare; "
            "to take this one, move the alias champion to it in MLflow"
        )
    champion_f1 = float(champion.tags["f1_micro"])
    if f1_micro > champion_f1:
        return True, f"micro F1 {f1_micro:.4f} against {champion_f1:.4f} of {rival}"
    return False, f"micro F1 {f1_micro:.4f} does not beat {champion_f1:.4f} of {rival}"
