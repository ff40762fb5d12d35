"""Versions of the model in the MLflow registry, and the choice of the champion.

The alias `challenger` names the version registered last. A version becomes the `champion` if it
beats the current one on the same test photos, or by `phototag promote` and `phototag rollback`.
Each decision is a tag of its version, so `phototag history` lists them.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from phototag.base.errors import InputError
from phototag.base.files import content_key
from phototag.dataset.dataset import Dataset
from phototag.network.weights import Metadata, describe_origin
from phototag.pages.escaping import escape_markdown
from phototag.registry.comparison import ModelFiles, compare_models, coverage, judge
from phototag.registry.decision import COLUMNS, MODEL_NAME, make_decision
from phototag.serving.pyfunc import log_model
from phototag.tracking.store import Store

PHOTOS_TAG, WEIGHTS_TAG, DIGEST_TAG = "test_fingerprint", "weights_digest", "model_digest"
DECISION_TAG = "decision."  # followed by the time; the value is JSON
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such model, version or alias


def register_model(
    store: Store, run_id: str, files: ModelFiles, tags: Mapping[str, str], description: str
) -> str:
    """Register the model as challenger and return its version.

    A model whose digest is registered already gets no new version. The tags are those that
    `describe_model` returns.
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
                info = log_model(*files, MODEL_NAME)
            version = str(info.registered_model_version)
            client.update_model_version(MODEL_NAME, version, description)
            values = {**tags, WEIGHTS_TAG: content_key(None, files)}
            # The digest comes last: a version without it is incomplete and registered again.
            del values[DIGEST_TAG]
            for name, value in {**values, DIGEST_TAG: digest}.items():
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
        "thresholds": json.dumps(thresholds),
        "content_key": metadata.content_key,
        DIGEST_TAG: model_digest,
        "data_fingerprint": data_fingerprint,
        PHOTOS_TAG: test_fingerprint,
        **{name: f"{value:.8g}" for name, value in scores.items()},
    }


def write_description(scores: pd.DataFrame, metadata: Metadata) -> str:
    """Return the description of a version in Markdown, with the model's rows of scores.csv."""
    table = scores[scores["predictor"] == "model"].dropna(subset="value")
    columns = (table[name] for name in ("metric", "value", "low", "high"))
    rows = [
        f"| {name} | {value:.4f} | {low:.4f} to {high:.4f} |"
        for name, value, low, high in zip(*columns, strict=True)
    ]
    return "\n".join(
        [
            f"Predicts {len(metadata.labels)} labels (tag `labels`). Input: photos as base64, data "
            f"URLs or bytes, resized to {metadata.size} x {metadata.size} pixels. Weights: epoch "
            f"{metadata.epoch}, val loss {metadata.val_loss:.4f}.",
            "",
            escape_markdown(describe_origin(metadata)),
            "",
            "| metric on held-out photos | value | 95% interval |",
            "|---|---|---|",
            *rows,
        ]
    )


def challenge_champion(
    store: Store, version: str, files: ModelFiles, photos: Dataset, resamples: int, seed: int
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Compare a version with the champion on test photos, and make it champion if it wins.

    The version wins without a comparison if there is no champion, or if the champion has the same
    weights and thresholds. It loses if the champion cannot be evaluated on these photos.

    Args:
        store: MLflow store.
        version: Version of the challenger.
        files: Files of the challenger.
        photos: Test photos.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        The decision, made by `make_decision`, and the comparison, returned by `compare_models`. If
        the models were compared, the decision has the number of the `challenge` and the `coverage`
        of the intervals; otherwise the comparison is empty.
    """
    compare = partial(compare_models, photos, files, resamples=resamples, seed=seed)
    with store.lock:
        while True:
            champion = find_champion(store.client)
            decision, comparison = _decide(store.client, version, champion, compare)
            # Another machine does not share the lock: if the champion changed, decide again.
            if decision["previous_champion"] == _number(find_champion(store.client)):
                return _apply(store.client, decision), comparison


def _decide(
    client: MlflowClient,
    version: str,
    champion: ModelVersion | None,
    compare: Callable[..., pd.DataFrame],
) -> tuple[dict[str, Any], pd.DataFrame]:
    decide = partial(make_decision, "challenge", int(version), _number(champion))
    nothing = pd.DataFrame(columns=COLUMNS)
    if champion is None:
        return decide(True, "there was no champion"), nothing
    name = f"champion version {champion.version}"
    own = client.get_model_version(MODEL_NAME, version)
    if weights_digest(own) == weights_digest(champion):
        return decide(True, f"{name} has the same weights and thresholds"), nothing
    challenge = count_challenges(client, own, champion)
    try:
        if champion.tags.get(PHOTOS_TAG) != own.tags[PHOTOS_TAG]:
            raise InputError("it was evaluated on other photos or labels")
        with TemporaryDirectory() as folder:
            rival = fetch_files(champion, Path(folder))
            comparison = compare(rival, challenge=challenge)
    except InputError as error:
        advice = f"to replace it, run `phototag promote {version}`"
        return decide(False, f"{name} cannot be compared: {error}; {advice}"), nothing
    decision = decide(*judge(comparison, challenge))
    return decision | {"challenge": challenge, "coverage": coverage(challenge)}, comparison


def weights_digest(version: ModelVersion) -> str:
    """Return a value that versions with the same weights and thresholds share."""
    return str(version.tags.get(WEIGHTS_TAG) or version.version)


def fetch_files(version: ModelVersion, folder: Path) -> ModelFiles:
    """Download a version's model file and thresholds file into a folder.

    Raises:
        InputError: The files are missing or cannot be downloaded.
    """
    uri = f"models:/{MODEL_NAME}/{version.version}"
    try:
        found = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise InputError(f"its files cannot be downloaded ({type(error).__name__})") from None
    files = found / "artifacts/model.safetensors", found / "artifacts/thresholds.json"
    if not all(file.is_file() for file in files):
        raise InputError("its files are missing")
    return files


def count_challenges(client: MlflowClient, own: ModelVersion, champion: ModelVersion) -> int:
    """Return the number, from 1, of a version's challenge of a champion on the same photos.

    Versions with the same weights and thresholds count as one model: a model that challenges again
    keeps its number, and so does the count of a champion that is registered again.
    """
    versions = client.search_model_versions(f"name = '{MODEL_NAME}'")
    champions = {int(v.version) for v in versions if weights_digest(v) == weights_digest(champion)}
    numbers: dict[str, int] = {}
    for version in versions:
        if version.tags.get(PHOTOS_TAG) != own.tags[PHOTOS_TAG]:
            continue
        for decision in _read_decisions(version):
            if "challenge" in decision and decision["previous_champion"] in champions:
                model, number = weights_digest(version), decision["challenge"]
                numbers[model] = min(number, numbers.get(model, number))
    # Deleted versions count too, so the next number is above the highest one.
    return numbers.get(weights_digest(own), 1 + max(numbers.values(), default=0))


def _number(version: ModelVersion | None) -> int | None:
    return int(version.version) if version else None


def _apply(client: MlflowClient, decision: dict[str, Any]) -> dict[str, Any]:
    """Write a decision to the tags of its version, move the alias, and return the decision."""
    version = str(decision["version"])
    tag = f"{DECISION_TAG}{decision['time']}"
    client.set_model_version_tag(MODEL_NAME, version, tag, json.dumps(decision))
    if decision["champion"]:
        client.set_registered_model_alias(MODEL_NAME, "champion", version)
    return decision


def find_champion(client: MlflowClient) -> ModelVersion | None:
    """Return the version that is the champion, or None."""
    try:
        return client.get_model_version_by_alias(MODEL_NAME, "champion")
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


def read_history(store: Store) -> list[dict[str, Any]]:
    """Return every decision about the champion, oldest first; `time` is in UTC."""
    versions = store.client.search_model_versions(f"name = '{MODEL_NAME}'")
    decisions = [decision for version in versions for decision in _read_decisions(version)]
    return sorted(decisions, key=lambda decision: str(decision["time"]))


def _read_decisions(version: ModelVersion) -> list[dict[str, Any]]:
    return [
        {"time": name.removeprefix(DECISION_TAG), **json.loads(value)}
        for name, value in version.tags.items()
        if name.startswith(DECISION_TAG)
    ]


def promote(store: Store, version: str, reason: str) -> dict[str, Any]:
    """Make a version the champion by hand, and return the decision.

    Raises:
        InputError: The version does not exist.
    """
    with store.lock:
        return _appoint(store.client, "promote", version, reason)


def roll_back(store: Store, reason: str) -> dict[str, Any]:
    """Make the version before the current champion the champion, and return the decision.

    A second rollback goes back one champion further.

    Raises:
        InputError: No champion exists, it is the first one, or the version before it was deleted.
    """
    with store.lock:
        champion = find_champion(store.client)
        if champion is None:
            raise InputError("there is no champion to roll back from: run `dvc repro`")
        for decision in reversed(read_history(store)):
            version, previous = decision["version"], decision["previous_champion"]
            appointed = decision["champion"] and version == int(champion.version)
            if appointed and decision["kind"] != "rollback" and previous not in (None, version):
                return _appoint(store.client, "rollback", str(previous), reason)
        raise InputError(f"version {champion.version} is the first champion: no version before it")


def _appoint(client: MlflowClient, kind: str, version: str, reason: str) -> dict[str, Any]:
    try:
        client.get_model_version(MODEL_NAME, version)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        raise InputError(
            f"{MODEL_NAME} has no version {version}: `phototag history` lists the versions, and "
            "`phototag promote` accepts any of them"
        ) from None
    previous = _number(find_champion(client))
    return _apply(client, make_decision(kind, int(version), previous, True, reason))
