"""The MLflow model registry: versions of the model, and which one is the champion.

The alias `challenger` is the version registered last, `champion` the one to use. Every decision
about the champion stands in the tags of the version it was about.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from phototag.base.errors import InputError
from phototag.data.dataset import Dataset
from phototag.network.weights import Metadata, describe_origin
from phototag.registry.comparison import COLUMNS, compare_models, judge, why_incomparable
from phototag.serving.pyfunc import log_model
from phototag.tracking.store import Store

MODEL_NAME = "phototag"
DECISION_TAG = "decision."  # and the time; the value is JSON


def register_model(
    store: Store,
    run_id: str,
    model_file: Path,
    thresholds_file: Path,
    tags: Mapping[str, str],
    description: str,
) -> str:
    """Put the model into the registry as challenger and return its version.

    The same model (tag `model_digest`) is registered once.

    Args:
        store: Where.
        run_id: The run that trained it.
        model_file: The safetensors file.
        thresholds_file: JSON with temperature and thresholds.
        tags: With `model_digest` and `test_fingerprint`.
        description: Markdown, which MLflow shows.
    """
    client = store.client
    with store.lock:
        digest = tags["model_digest"]
        found = client.search_model_versions(
            f"name = '{MODEL_NAME}' and tags.model_digest = '{digest}'"
        )
        if found:
            version = str(found[0].version)
        else:
            with mlflow.start_run(run_id=run_id):
                info = log_model(model_file, thresholds_file, MODEL_NAME)
            version = str(info.registered_model_version)
            client.update_model_version(MODEL_NAME, version, description)
            for name, value in tags.items():
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
    """Return a version's tags: what it is, what it was trained on, and how good it is."""
    return {
        "labels": ", ".join(metadata.labels),
        "thresholds": json.dumps({name: round(value, 4) for name, value in thresholds.items()}),
        "content_key": metadata.content_key,
        "model_digest": model_digest,
        "data_fingerprint": data_fingerprint,
        "test_fingerprint": test_fingerprint,
        **{name: f"{value:.4f}" for name, value in scores.items()},
    }


def write_description(scores: pd.DataFrame, metadata: Metadata) -> str:
    """Write the version's page in Markdown: what it is and its table of scores.

    Args:
        scores: Of `evaluation.tabulate_scores`.
        metadata: Of the model.
    """
    table = scores[scores["predictor"] == "model"]
    rows = [
        f"| {name} | {value:.4f} | {low:.4f} to {high:.4f} |"
        for name, value, low, high in zip(
            table["metric"], table["value"], table["low"], table["high"], strict=True
        )
        if value == value
    ]
    return "\n".join(
        [
            f"Labels photos with {', '.join(metadata.labels)}. Takes photos (base64, data URLs "
            f"or bytes); the network sees {metadata.size} x {metadata.size} pixels. Weights of "
            f"epoch {metadata.epoch}, val loss {metadata.val_loss:.4f}.",
            "",
            describe_origin(metadata),
            "",
            "| metric on held-out photos | value | 95% interval |",
            "|---|---|---|",
            *rows,
        ]
    )


def challenge_champion(
    store: Store,
    version: str,
    model_file: Path,
    thresholds_file: Path,
    judged: Dataset,
    resamples: int,
    seed: int,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Let a version challenge the champion on the test photos; it becomes champion if it wins.

    Where there is no champion it wins. A champion that was judged on other photos or labels, or
    that cannot be judged on these, stays.

    Args:
        store: Where.
        version: The challenger.
        model_file: Its safetensors file.
        thresholds_file: Its thresholds.
        judged: The photos.
        resamples: Of the bootstrap.
        seed: Of the resamples.

    Returns:
        name, version, champion (whether it is now), previous_champion, kind and reason; and the
        comparison, of `comparison.compare_models`, which has no rows where there was none.
    """
    with store.lock:
        champion = find_champion(store.client)
        wins, reason, comparison = _compare(
            store, version, champion, (model_file, thresholds_file), judged, resamples, seed
        )
        decision = _decide(store.client, "challenge", version, champion, wins, reason)
    return decision, comparison


def _compare(
    store: Store,
    version: str,
    champion: Any | None,
    files: tuple[Path, Path],
    judged: Dataset,
    resamples: int,
    seed: int,
) -> tuple[bool, str, pd.DataFrame]:
    nothing = pd.DataFrame(columns=COLUMNS)
    if champion is None:
        return True, "there was no champion", nothing
    if str(champion.version) == version:
        return True, "it is the champion already", nothing
    own = store.client.get_model_version(MODEL_NAME, version).tags["test_fingerprint"]
    with TemporaryDirectory() as folder:
        try:
            rival = _fetch(champion, Path(folder))
            if champion.tags.get("test_fingerprint") != own:
                problem = "it was judged on other photos or labels"
            else:
                problem = why_incomparable(judged, rival[0])
        except (InputError, MlflowException, OSError) as error:
            problem = f"its files cannot be fetched ({type(error).__name__})"
        if problem:
            reason = (
                f"champion version {champion.version} does not compare: {problem}; to take this "
                f"one, phototag promote {version}"
            )
            return False, reason, nothing
        comparison = compare_models(judged, files, rival, resamples, seed)
    return *judge(comparison), comparison


def _fetch(version: Any, folder: Path) -> tuple[Path, Path]:
    """Download a version's weights and thresholds."""
    uri = f"models:/{MODEL_NAME}/{version.version}"
    place = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    return place / "artifacts/model.safetensors", place / "artifacts/thresholds.json"


def _decide(
    client: MlflowClient, kind: str, version: str, champion: Any | None, wins: bool, reason: str
) -> dict[str, Any]:
    """Move the alias where the version wins, and write the decision to its tags."""
    decision = {
        "name": MODEL_NAME,
        "version": int(version),
        "champion": wins,
        "previous_champion": int(champion.version) if champion else None,
        "kind": kind,
        "reason": reason,
    }
    if wins:
        client.set_registered_model_alias(MODEL_NAME, "champion", version)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    client.set_model_version_tag(MODEL_NAME, version, f"{DECISION_TAG}{now}", json.dumps(decision))
    return decision


def find_champion(client: MlflowClient) -> Any | None:
    """Return the version that is the champion, or nothing."""
    try:
        return client.get_model_version_by_alias(MODEL_NAME, "champion")
    except MlflowException:
        return None


def read_history(store: Store) -> list[dict[str, Any]]:
    """Return every decision about the champion, the oldest first; `time` is UTC."""
    decisions = [
        {"time": name.removeprefix(DECISION_TAG), **json.loads(value)}
        for version in store.client.search_model_versions(f"name = '{MODEL_NAME}'")
        for name, value in version.tags.items()
        if name.startswith(DECISION_TAG)
    ]
    return sorted(decisions, key=lambda decision: str(decision["time"]))


def promote(store: Store, version: str, reason: str) -> dict[str, Any]:
    """Make a version the champion by hand.

    Raises:
        InputError: There is no such version.
    """
    with store.lock:
        try:
            store.client.get_model_version(MODEL_NAME, version)
        except MlflowException:
            raise InputError(
                f"{MODEL_NAME} has no version {version}: `phototag history` lists them"
            ) from None
        champion = find_champion(store.client)
        return _decide(store.client, "promote", version, champion, True, reason)


def roll_back(store: Store, reason: str) -> dict[str, Any]:
    """Make the version champion that was it before the present one.

    Rolling back twice goes two champions back: earlier roll backs are passed over.

    Raises:
        InputError: There is no champion, or none before it.
    """
    with store.lock:
        champion = find_champion(store.client)
        if champion is None:
            raise InputError("there is no champion to roll back from: run `dvc repro`")
        for decision in reversed(read_history(store)):
            came = decision["champion"] and decision["version"] == int(champion.version)
            previous = decision["previous_champion"]
            if came and decision["kind"] != "rollback" and previous != decision["version"]:
                break
        else:
            previous = None
        if previous is None:
            raise InputError(f"before champion version {champion.version} there was no other")
        return _decide(store.client, "rollback", str(previous), champion, True, reason)
