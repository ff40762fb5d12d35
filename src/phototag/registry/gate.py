"""The champion gate: which version of the model is the champion, and why.

A version becomes the champion if it beats the current one on the same test photos, or by hand with
`phototag promote` and `phototag rollback`.
Each decision is a tag of its version, so `phototag history` lists them.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from phototag.base.errors import InputError
from phototag.dataset.dataset import Dataset
from phototag.registry.comparison import check_comparable, compare_models, coverage, judge
from phototag.registry.decision import COLUMNS, MODEL_NAME, make_decision
from phototag.registry.versions import PHOTOS_TAG, fetch_files, weights_digest
from phototag.tracking.store import Store

DECISION_TAG = "decision."  # followed by the time; the value is JSON
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such model, version or alias


def challenge_champion(
    store: Store,
    version: str,
    model_file: Path,
    thresholds_file: Path,
    photos: Dataset,
    resamples: int,
    seed: int,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Compare a version with the champion on test photos, and make it champion if it wins.

    The version wins without a comparison if there is no champion, or if the champion has the same
    weights and thresholds. It loses if the champion cannot be evaluated on these photos.

    Args:
        store: MLflow store.
        version: Version of the challenger.
        model_file: Safetensors file of the challenger.
        thresholds_file: Thresholds file of the challenger.
        photos: Test photos.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Returns:
        The decision, made by `make_decision`, and the comparison, returned by `compare_models`. If
        the models were compared, the decision has the number of the `challenge` and the `coverage`
        of the intervals; otherwise the comparison is empty.
    """
    files = model_file, thresholds_file
    with store.lock:
        while True:
            decision, comparison = _decide(store.client, version, files, photos, resamples, seed)
            # Another machine does not share the lock: if the champion changed, decide again.
            if decision["previous_champion"] == _version_number(find_champion(store.client)):
                return _apply(store.client, decision), comparison


def _decide(
    client: MlflowClient,
    version: str,
    files: tuple[Path, Path],
    photos: Dataset,
    resamples: int,
    seed: int,
) -> tuple[dict[str, Any], pd.DataFrame]:
    champion = find_champion(client)
    own = client.get_model_version(MODEL_NAME, version)
    nothing = pd.DataFrame(columns=COLUMNS)
    if champion is None:
        return _decision("challenge", version, None, True, "there was no champion"), nothing
    if str(champion.version) == version:
        reason = "it is already the champion"
        return _decision("challenge", version, champion, True, reason), nothing
    if weights_digest(own) == weights_digest(champion):
        reason = f"champion version {champion.version} has the same weights and thresholds"
        return _decision("challenge", version, champion, True, reason), nothing
    with TemporaryDirectory() as folder:
        try:
            if champion.tags.get(PHOTOS_TAG) != own.tags[PHOTOS_TAG]:
                raise InputError("it was evaluated on other photos or labels")
            rival = fetch_files(champion, Path(folder))
            check_comparable(photos, *rival)
        except InputError as error:
            reason = (
                f"champion version {champion.version} cannot be compared: {error}; to replace it, "
                f"run `phototag promote {version}`"
            )
            return _decision("challenge", version, champion, False, reason), nothing
        challenge = count_challenges(client, own, champion)
        comparison = compare_models(photos, files, rival, resamples, seed, challenge)
    wins, reason = judge(comparison, challenge)
    decision = _decision("challenge", version, champion, wins, reason)
    return decision | {"challenge": challenge, "coverage": coverage(challenge)}, comparison


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


def _decision(
    kind: str, version: str, champion: ModelVersion | None, wins: bool, reason: str
) -> dict[str, Any]:
    return make_decision(kind, int(version), _version_number(champion), wins, reason)


def _version_number(version: ModelVersion | None) -> int | None:
    return int(version.version) if version else None


def _apply(client: MlflowClient, decision: dict[str, Any]) -> dict[str, Any]:
    """Write a decision to the tags of its version, move the alias, and return the decision."""
    version = str(decision["version"])
    values = {key: value for key, value in decision.items() if key != "time"}
    tag = f"{DECISION_TAG}{decision['time']}"
    client.set_model_version_tag(MODEL_NAME, version, tag, json.dumps(values))
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
    return _apply(client, _decision(kind, version, find_champion(client), True, reason))
