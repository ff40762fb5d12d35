"""Model versions in the MLflow Model Registry, and selection of the champion.

The alias `challenger` points to the version that was registered last. A version becomes the
`champion` if it beats the current champion on the same test photos, or if a user makes it the
champion with `phototag promote` or `phototag rollback`. Each decision about a version is
stored in a tag of this version. `phototag history` lists all decisions.
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

TEST_TAG, VAL_TAG = "test_fingerprint", "val_fingerprint"  # each version has one of these tags
WEIGHTS_TAG, DIGEST_TAG = "weights_digest", "model_digest"
DECISION_TAG = "decision."  # prefix of the tag, before the time of the decision; its value is JSON
MODEL_FILE, THRESHOLDS_FILE = "artifacts/model.safetensors", "artifacts/thresholds.json"
# MLflow's error codes for a missing model or version.
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def register_model(
    store: Store, run_id: str, files: ModelFiles, tags: Mapping[str, str], description: str
) -> str:
    """Register a model as the challenger, and return the number of its version.

    If there is already a version with the same model digest and its files, it becomes the
    challenger and no new version is created. `tags` are the tags returned by `describe_model`.
    """
    client, digest = store.client, tags[DIGEST_TAG]
    with store.lock:
        query = f"name = '{MODEL_NAME}' and tags.{DIGEST_TAG} = '{digest}'"
        found = [str(each.version) for each in client.search_model_versions(query)]
        version = next(filter(has_files, found), "")
        if not version:
            with mlflow.start_run(run_id=run_id):
                info = log_model(*files, MODEL_NAME)
            version = str(info.registered_model_version)
            client.update_model_version(MODEL_NAME, version, description)
            values = {**tags, WEIGHTS_TAG: content_key(None, files)}
            # The digest is set last: if the loop is interrupted, the next call registers again.
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
    split: str,
    fingerprint: str,
) -> dict[str, str]:
    """Return the tags of a version; `fingerprint` is a hash of the photos and labels of `split`."""
    return {
        "labels": ", ".join(metadata.labels),
        "thresholds": json.dumps(thresholds),
        "content_key": metadata.content_key,
        DIGEST_TAG: model_digest,
        "data_fingerprint": data_fingerprint,
        VAL_TAG if split == "val" else TEST_TAG: fingerprint,
        **{name: f"{value:.8g}" for name, value in scores.items()},
    }


def write_description(scores: pd.DataFrame, metadata: Metadata, split: str = "test") -> str:
    """Return a description of a version in Markdown, with a table of the scores on a split."""
    table = scores[scores["predictor"] == "model"].dropna(subset="value")
    rows = [
        f"| {row.metric} | {row.value:.4f} | {row.low:.4f} to {row.high:.4f} |"
        for row in table.itertuples()
    ]
    return "\n".join(
        [
            f"Predicts {len(metadata.labels)} labels, which the tag `labels` lists. Input: photos "
            "as base64 strings, data URLs or bytes; each photo is resized to "
            f"{metadata.size} x {metadata.size} pixels. Weights: checkpoint of epoch "
            f"{metadata.epoch} with a val loss of {metadata.val_loss:.4f}.",
            "",
            escape_markdown(describe_origin(metadata)),
            "",
            f"| metric on {split} | value | 95% interval |",
            "|---|---|---|",
            *rows,
        ]
    )


def challenge_champion(
    store: Store, version: str, files: ModelFiles, photos: Dataset, resamples: int, seed: int
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Compare a version with the champion on the test photos, and promote the version if it wins.

    The version wins without a comparison if there is no champion, if the files of the champion were
    deleted, or if the champion has the same weights and thresholds. If the champion cannot be
    evaluated on the photos, or if there is no test split (`photos` are then those of val), it
    stays. The other arguments are those of `compare_models`.

    Returns:
        Decision in the format of `make_decision`, and table in the format of `compare_models`. The
        table is empty if the models were not compared. Otherwise, the decision also has the keys
        `split`, `challenge` (number of the challenge) and `coverage` (of the intervals).
    """
    compare = partial(compare_models, photos, files, resamples=resamples, seed=seed)
    with store.lock:
        while True:
            decision, comparison = _decide(store.client, version, compare)
            # The lock is local. If another machine changed the champion, decide again.
            if decision["previous_champion"] == find_champion(store.client):
                return _apply(store.client, decision), comparison


def _decide(
    client: MlflowClient, version: str, compare: Callable[..., pd.DataFrame]
) -> tuple[dict[str, Any], pd.DataFrame]:
    number = find_champion(client)
    decide = partial(make_decision, "challenge", int(version), number)
    nothing = pd.DataFrame(columns=COLUMNS)
    if number is None:
        return decide(True, "there was no champion"), nothing
    name = f"champion version {number}"
    own, champion = (client.get_model_version(MODEL_NAME, str(n)) for n in (version, number))
    if weights_digest(own) == weights_digest(champion):
        return decide(True, f"{name} has the same weights and thresholds"), nothing
    if not has_files(str(number)):
        return decide(True, f"the files of {name} were deleted"), nothing
    challenge = count_challenges(client, own, champion)
    try:
        if evaluated_photos(champion) != evaluated_photos(own):
            raise InputError("it was evaluated on different photos or with different labels")
        with TemporaryDirectory() as folder:
            comparison = compare(fetch_files(str(number), folder), challenge=challenge)
    except InputError as error:
        advice = f"to replace it, run `phototag promote {version}`"
        return decide(False, f"{name} cannot be compared: {error}; {advice}"), nothing
    decision = decide(*judge(comparison, challenge))
    split, _ = evaluated_photos(own)
    if split == "val":
        reason = "both models were selected on val, so a comparison on val is no evidence"
        advice = f"set split.test above 0, or run `phototag promote {version}`"
        decision = decide(False, f"{name} stays: {reason}; {advice}")
    details = {"split": split, "challenge": challenge, "coverage": coverage(challenge)}
    return decision | details, comparison


def evaluated_photos(version: ModelVersion) -> tuple[str, str]:
    """Return the split on which a version was evaluated, and the fingerprint of its photos."""
    tags = version.tags
    return ("val", tags[VAL_TAG]) if VAL_TAG in tags else ("test", tags.get(TEST_TAG, ""))


def weights_digest(version: ModelVersion) -> str:
    """Return the digest of a version's weights and thresholds (default: the version number)."""
    return str(version.tags.get(WEIGHTS_TAG) or version.version)


def has_files(version: str) -> bool:
    """Return whether a version and its model files exist. MLflow keeps versions without files."""
    try:
        found = mlflow.artifacts.list_artifacts(f"models:/{MODEL_NAME}/{version}/artifacts")
    except MlflowException as error:
        if error.error_code in ABSENT:
            return False
        raise
    return {file.path for file in found} >= {MODEL_FILE, THRESHOLDS_FILE}


def fetch_files(version: str, folder: str) -> ModelFiles:
    """Download the model file and the thresholds file of a version into a folder."""
    found = mlflow.artifacts.download_artifacts(f"models:/{MODEL_NAME}/{version}", dst_path=folder)
    return Path(found, MODEL_FILE), Path(found, THRESHOLDS_FILE)


def count_challenges(client: MlflowClient, own: ModelVersion, champion: ModelVersion) -> int:
    """Return the number of a challenge among the champion's challenges on the same photos.

    Numbers start from 1. `own` is the challenger's version. Versions with the same weights and
    thresholds count as one model. Therefore, a model that challenges the champion again keeps its
    number. If a champion is registered again, the challenges of its earlier versions still count.
    """
    versions = client.search_model_versions(f"name = '{MODEL_NAME}'")
    champions = {int(v.version) for v in versions if weights_digest(v) == weights_digest(champion)}
    numbers: dict[str, int] = {}
    for version in versions:
        if evaluated_photos(version) != evaluated_photos(own):
            continue
        for decision in _read_decisions(version):
            if "challenge" in decision and decision["previous_champion"] in champions:
                model, number = weights_digest(version), decision["challenge"]
                numbers[model] = min(number, numbers.get(model, number))
    # A new number is one more than the highest number, because deleted versions also count.
    return numbers.get(weights_digest(own), 1 + max(numbers.values(), default=0))


def _apply(client: MlflowClient, decision: dict[str, Any]) -> dict[str, Any]:
    """Store a decision in a tag of its version, and return it. Update the alias if necessary."""
    version = str(decision["version"])
    tag = f"{DECISION_TAG}{decision['time']}"
    client.set_model_version_tag(MODEL_NAME, version, tag, json.dumps(decision))
    if decision["champion"]:
        client.set_registered_model_alias(MODEL_NAME, "champion", version)
    return decision


def find_champion(client: MlflowClient) -> int | None:
    """Return the number of the champion's version, or None if there is no champion."""
    for model in client.search_registered_models(f"name = '{MODEL_NAME}'"):
        if "champion" in model.aliases:
            return int(model.aliases["champion"])
    return None


def read_history(store: Store) -> list[dict[str, Any]]:
    """Return all decisions about the champion, oldest first, with their `time` in UTC."""
    versions = store.client.search_model_versions(f"name = '{MODEL_NAME}'")
    decisions = [decision for version in versions for decision in _read_decisions(version)]
    return sorted(decisions, key=lambda decision: str(decision["time"]))


def describe_registry(store: Store) -> list[str]:
    """Return one line on deleted versions, if there are any, and one line on the champion."""
    versions = store.client.search_model_versions(f"name = '{MODEL_NAME}'")
    existing = {int(version.version) for version in versions}
    deleted = sorted(set(range(1, max(existing, default=0))) - existing)
    lines = [f"deleted in MLflow: version {', '.join(map(str, deleted))}"] if deleted else []
    champion = find_champion(store.client)
    missing = "there is no champion: run `phototag promote VERSION`"
    return [*lines, f"the champion is version {champion}" if champion else missing]


def _read_decisions(version: ModelVersion) -> list[dict[str, Any]]:
    return [
        {"time": name.removeprefix(DECISION_TAG), **json.loads(value)}
        for name, value in version.tags.items()
        if name.startswith(DECISION_TAG)
    ]


def promote(store: Store, version: str, reason: str, kind: str = "promote") -> dict[str, Any]:
    """Make a version the champion without a comparison, and return the decision.

    Raises:
        InputError: The version does not exist, or its files were deleted.
    """
    with store.lock:
        if not has_files(version):
            raise InputError(
                f"version {version} of the model {MODEL_NAME} does not exist, or its files were "
                "deleted: run `phototag history` to list the versions, and pass another one to "
                "`phototag promote`"
            )
        previous = find_champion(store.client)
        return _apply(store.client, make_decision(kind, int(version), previous, True, reason))


def roll_back(store: Store, reason: str) -> dict[str, Any]:
    """Restore the previous champion, and return the decision.

    A second rollback restores the champion that was in use before the previous one.

    Raises:
        InputError: There is no champion, there is no previous champion, or the previous champion
            was deleted from the registry.
    """
    with store.lock:
        champion = find_champion(store.client)
        if champion is None:
            raise InputError("there is no champion to roll back from: run `dvc repro` to get one")
        for decision in reversed(read_history(store)):
            version, previous = decision["version"], decision["previous_champion"]
            appointed = decision["champion"] and version == champion
            if appointed and decision["kind"] != "rollback" and previous not in (None, version):
                return promote(store, str(previous), reason, "rollback")
        raise InputError(
            f"version {champion} is the first champion, so there is no previous one: run "
            "`phototag promote` to choose another version"
        )
