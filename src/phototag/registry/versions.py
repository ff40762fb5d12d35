"""The MLflow model registry: versions of the model, and which one is the champion.

The alias `challenger` is the version registered last, `champion` the one to use. Every decision
about the champion stands in the tags of the version it was about, before the alias moves.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from phototag.base.errors import InputError
from phototag.base.files import content_key
from phototag.dataset.dataset import Dataset
from phototag.network.weights import Metadata, describe_origin
from phototag.pages.escaping import escape_markdown
from phototag.registry.comparison import compare_models, coverage, judge, why_incomparable
from phototag.registry.decision import COLUMNS, MODEL_NAME, write_time
from phototag.serving.pyfunc import log_model
from phototag.tracking.store import Store

DECISION_TAG = "decision."  # and the time; the value is JSON
PHOTOS_TAG, WEIGHTS_TAG = "test_fingerprint", "weights_digest"
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no model, or no such alias
NAMED = 50  # labels in a description


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
    all_tags = {**tags, WEIGHTS_TAG: _digest(model_file, thresholds_file)}
    digest = all_tags.pop("model_digest")
    all_tags["model_digest"] = digest  # last: what was killed before is registered anew
    with store.lock:
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
            for name, value in all_tags.items():
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
        "thresholds": json.dumps(
            {name: float(f"{value:.8g}") for name, value in thresholds.items()}
        ),
        "content_key": metadata.content_key,
        "model_digest": model_digest,
        "data_fingerprint": data_fingerprint,
        "test_fingerprint": test_fingerprint,
        **{name: f"{value:.8g}" for name, value in scores.items()},
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
    labels = ", ".join(escape_markdown(label) for label in metadata.labels[:NAMED])
    more = len(metadata.labels) - NAMED
    return "\n".join(
        [
            f"Labels photos with {labels}{f' and {more} more' if more > 0 else ''}. Takes photos "
            f"(base64, data URLs or bytes); the network sees {metadata.size} x {metadata.size} "
            f"pixels. Weights of epoch {metadata.epoch}, val loss {metadata.val_loss:.4f}.",
            "",
            escape_markdown(describe_origin(metadata)),
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
    that cannot be judged on these, stays; but its own weights and thresholds with newer code take
    its place.

    Args:
        store: Where.
        version: The challenger.
        model_file: Its safetensors file.
        thresholds_file: Its thresholds.
        judged: The photos.
        resamples: Of the bootstrap.
        seed: Of the resamples.

    Returns:
        name, version, champion (whether it is now), previous_champion, kind, reason and time (UTC),
        and where there was a comparison challenge (which one it was) and coverage (of the
        intervals); and the comparison, of `comparison.compare_models`, which else has no rows.
    """
    with store.lock:
        _settle(store.client)
        while True:
            champion = find_champion(store.client)
            wins, decision, comparison = _compare(
                store, version, champion, (model_file, thresholds_file), judged, resamples, seed
            )
            if not wins:
                return _record(store.client, decision), comparison
            if _claim(store.client, decision):
                return decision, comparison
            # Another machine's model became champion meanwhile: decide again.


def _compare(
    store: Store,
    version: str,
    champion: Any | None,
    files: tuple[Path, Path],
    judged: Dataset,
    resamples: int,
    seed: int,
) -> tuple[bool, dict[str, Any], pd.DataFrame]:
    nothing = pd.DataFrame(columns=COLUMNS)
    if champion is None:
        reason = "there was no champion"
        return True, _decision("challenge", version, champion, True, reason), nothing
    if str(champion.version) == version:
        reason = "it is the champion already"
        return True, _decision("challenge", version, champion, True, reason), nothing
    own = store.client.get_model_version(MODEL_NAME, version)
    with TemporaryDirectory() as folder:
        problem, same = "", False
        try:
            rival = _fetch(champion, Path(folder))
            same = _digest(*rival) == _digest(*files)
        except (MlflowException, OSError) as error:
            problem = f"its files cannot be fetched ({type(error).__name__})"
        if same:
            reason = (
                f"the weights and thresholds of champion version {champion.version}, newer code"
            )
            return True, _decision("challenge", version, champion, True, reason), nothing
        if not problem and champion.tags.get(PHOTOS_TAG) != own.tags[PHOTOS_TAG]:
            problem = "it was judged on other photos or labels"
        if problem := problem or why_incomparable(judged, *rival):
            reason = (
                f"champion version {champion.version} does not compare: {problem}; to take this "
                f"one, phototag promote {version}"
            )
            return False, _decision("challenge", version, champion, False, reason), nothing
        number = count_challenges(store.client, own, champion)
        comparison = compare_models(judged, files, rival, resamples, seed, number)
    wins, reason = judge(comparison, number)
    decision = _decision("challenge", version, champion, wins, reason)
    return wins, decision | {"challenge": number, "coverage": coverage(number)}, comparison


def count_challenges(client: MlflowClient, own: Any, champion: Any) -> int:
    """Return which challenge of this champion on these photos a version's is, from 1.

    It follows from the decisions in the registry. A model that challenged before, also with other
    code, keeps its number, and so does a champion that was registered again with other code.
    """
    taken: dict[str, int] = {}
    versions = client.search_model_versions(f"name = '{MODEL_NAME}'")
    same = {int(v.version) for v in versions if _model_of(v) == _model_of(champion)}
    for version in versions:
        if version.tags.get(PHOTOS_TAG) != own.tags[PHOTOS_TAG]:
            continue
        for decision in _decisions(version):
            if "challenge" in decision and decision["previous_champion"] in same:
                model = _model_of(version)
                taken[model] = min(decision["challenge"], taken.get(model, decision["challenge"]))
    # Of versions that were deleted, the numbers of later ones tell.
    return taken.get(_model_of(own), 1 + max(len(taken), *taken.values(), 0))


def _model_of(version: Any) -> str:
    """Return what two versions of one model share, whatever code they bring along."""
    return str(version.tags.get(WEIGHTS_TAG) or version.version)


def _digest(model_file: Path, thresholds_file: Path) -> str:
    return content_key(None, [model_file, thresholds_file])


def _fetch(version: Any, folder: Path) -> tuple[Path, Path]:
    """Download a version's weights and thresholds."""
    uri = f"models:/{MODEL_NAME}/{version.version}"
    place = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    return place / "artifacts/model.safetensors", place / "artifacts/thresholds.json"


def _decision(
    kind: str, version: str, champion: Any | None, wins: bool, reason: str
) -> dict[str, Any]:
    return {
        "name": MODEL_NAME,
        "version": int(version),
        "champion": wins,
        "previous_champion": int(champion.version) if champion else None,
        "kind": kind,
        "reason": reason,
        "time": write_time(),
    }


def _record(client: MlflowClient, decision: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Write a decision to the tags of its version, and return it."""
    told = {key: value for key, value in decision.items() if key != "time"} | more
    tag = f"{DECISION_TAG}{decision['time']}"
    client.set_model_version_tag(MODEL_NAME, str(decision["version"]), tag, json.dumps(told))
    return decision


def _claim(client: MlflowClient, decision: dict[str, Any]) -> bool:
    """Make a version champion, where the champion is still the one it was decided about.

    The decision is written first, as pending, so that a process that dies in between leaves a
    trace from which `_settle` goes on.

    Returns:
        Whether it is the champion now.
    """
    _record(client, decision, pending=True)
    _settle(client)
    # Another machine may have been quicker to carry it out, or to find it void.
    own = (decision["time"], decision["version"])
    return any(d["champion"] for d in _read_decisions(client) if (d["time"], d["version"]) == own)


def _settle(client: MlflowClient) -> None:
    """Carry out pending decisions, the oldest first.

    One that was taken about another champion than the present one is void.
    """
    for decision in _read_decisions(client):
        if not decision.pop("pending", False):
            continue
        champion = find_champion(client)
        present = int(champion.version) if champion else None
        stands = present in (decision["previous_champion"], decision["version"])
        if stands:
            version = str(decision["version"])
            client.set_registered_model_alias(MODEL_NAME, "champion", version)
        else:
            meanwhile = f"version {present} became champion" if present else "the champion went"
            decision["champion"] = False
            decision["reason"] += f"; but meanwhile {meanwhile}"
        _record(client, decision)


def find_champion(client: MlflowClient) -> Any | None:
    """Return the version that is the champion; nothing where there is none, or it was deleted.

    Raises:
        MlflowException: The store cannot be asked; that is no answer.
    """
    try:
        return client.get_model_version_by_alias(MODEL_NAME, "champion")
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


def read_history(store: Store) -> list[dict[str, Any]]:
    """Return every decision about the champion, the oldest first; `time` is UTC."""
    return [
        {key: value for key, value in decision.items() if key != "pending"}
        for decision in _read_decisions(store.client)
    ]


def _read_decisions(client: MlflowClient) -> list[dict[str, Any]]:
    versions = client.search_model_versions(f"name = '{MODEL_NAME}'")
    decisions = [decision for version in versions for decision in _decisions(version)]
    return sorted(decisions, key=lambda decision: str(decision["time"]))


def _decisions(version: Any) -> list[dict[str, Any]]:
    return [
        {"time": name.removeprefix(DECISION_TAG), **json.loads(value)}
        for name, value in version.tags.items()
        if name.startswith(DECISION_TAG)
    ]


def promote(store: Store, version: str, reason: str) -> dict[str, Any]:
    """Make a version the champion by hand.

    Raises:
        InputError: There is no such version.
    """
    with store.lock:
        _settle(store.client)
        if not _exists(store.client, version):
            raise InputError(
                f"{MODEL_NAME} has no version {version}: `phototag history` lists them"
            )
        return _appoint(store.client, "promote", version, reason)


def _appoint(client: MlflowClient, kind: str, version: str, reason: str) -> dict[str, Any]:
    """Make a version the champion, whoever is it."""
    while True:
        decision = _decision(kind, version, find_champion(client), True, reason)
        if _claim(client, decision):
            return decision


def _exists(client: MlflowClient, version: str) -> bool:
    try:
        client.get_model_version(MODEL_NAME, version)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return False
        raise
    return True


def roll_back(store: Store, reason: str) -> dict[str, Any]:
    """Make the version champion that was it before the present one.

    Rolling back twice goes two champions back: earlier roll backs are passed over.

    Raises:
        InputError: There is no champion, or none before it, or that one was deleted.
    """
    with store.lock:
        _settle(store.client)
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
        if not _exists(store.client, str(previous)):
            raise InputError(
                f"version {previous}, the champion before version {champion.version}, was "
                "deleted: `phototag promote` takes any other"
            )
        return _appoint(store.client, "rollback", str(previous), reason)
