"""Page of the stage `register`: the challenger and the champion side by side."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from phototag.dataset.manifest import SPLITS
from phototag.dataset.targets import is_known
from phototag.evaluation.galleries import describe_truth, encode_photo
from phototag.evaluation.result import HEADLINE
from phototag.evaluation.targets import name_labels
from phototag.metrics.classification import MIN_POSITIVES
from phototag.metrics.selection import SCORE_PREFIXES
from phototag.registry.comparison import Comparison, Predictions
from phototag.registry.decision import write_decision
from phototag.registry.lookup import get_version
from phototag.registry.versions import (
    ABSENT,
    describe_label_changes,
    list_labels,
)
from phototag.tracking.provenance import COMMIT_TAG, DIRTY_TAG
from phototag.tracking.store import Store

MAX_LABELS = 10  # largest number of labels that gained, and of labels that lost
MAX_NAMES = 30  # largest number of labels that are named as too rare
MAX_PHOTOS = 10  # largest number of photos on which the models disagree
SCORES = [f"{prefix}{name}" for prefix in SCORE_PREFIXES.values() for name in HEADLINE]


def write_report(
    folder: Path,
    store: Store,
    decision: Mapping[str, Any],
    comparison: Comparison | None,
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write decision.json, comparison.csv, labels.csv and report.html.

    Args:
        folder: Folder to which the files are written.
        store: Store with the registry.
        decision: Decision that `challenge_champion` returned.
        comparison: Comparison that `challenge_champion` returned.
        renamed: Present names of renamed labels.
    """
    numbers = dict.fromkeys([decision["previous_champion"], decision["version"]])
    versions = [get_version(store, n) for n in numbers if n is not None]
    page: dict[str, Any] = {"own_scores": tabulate_scores(versions)}
    if len(versions) == 2:
        page["changes"] = list_changes(store.client, *versions)
        page["label_changes"] = describe_label_changes(versions[1], versions[0], renamed)
    if comparison is None:
        write_decision(folder, decision, **page)
        return
    enough = comparison.labels["positives"] >= MIN_POSITIVES
    ranked = comparison.labels[enough].sort_values("difference", ascending=False, kind="stable")
    page["label_rows"] = ranked[ranked["difference"] > 0].head(MAX_LABELS).to_dict("records")
    page["label_rows"] += ranked[ranked["difference"] < 0].tail(MAX_LABELS).to_dict("records")
    few = comparison.labels[~enough]
    counted = [f"{row.label} ({row.positives})" for row in few.itertuples()]
    page |= {"few": name_labels(counted, MAX_NAMES), "photos": list_disagreements(comparison)}
    write_decision(folder, decision, comparison.scores, comparison.labels, **page)


def tabulate_scores(versions: Sequence[ModelVersion]) -> list[tuple[str, list[str]]]:
    """Return the name of each score in the tags of versions, and its value for each version."""
    rows = ((name, [version.tags.get(name, "") for version in versions]) for name in SCORES)
    return [
        (name, [value and f"{float(value):.4f}" for value in row]) for name, row in rows if any(row)
    ]


def list_changes(
    client: MlflowClient, champion: ModelVersion, own: ModelVersion
) -> list[tuple[str, str, str]]:
    """Return facts and changed params of two versions: name, value of `champion`, value of `own`.

    Params are omitted if the run of a version was deleted.
    """
    runs = [_find_run(client, version) for version in (champion, own)]
    old, new = map(_list_facts, (champion, own), runs)
    rows = [(name, old[name], new[name]) for name in old]
    params = [run.data.params for run in runs if run]
    if len(params) == 2:
        old, new = params
        names = (name for name in sorted(old | new) if old.get(name) != new.get(name))
        rows += [(name, old.get(name, ""), new.get(name, "")) for name in names]
    return rows


def _find_run(client: MlflowClient, version: ModelVersion) -> Run | None:
    """Return the run of a version, or None if it was deleted."""
    try:
        return client.get_run(version.run_id) if version.run_id else None
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


def _list_facts(version: ModelVersion, run: Run | None) -> dict[str, str]:
    tags = run.data.tags if run else {}
    created = datetime.fromtimestamp(version.creation_timestamp / 1000, UTC)
    modified = " with uncommitted changes" if tags.get(DIRTY_TAG) == "true" else ""
    return {
        "registered": f"{created:%Y-%m-%d %H:%M} UTC",
        **{f"photos in {split}": version.tags.get(f"{split}_photos", "") for split in SPLITS},
        "labels": str(len(list_labels(version))),
        "git commit": tags.get(COMMIT_TAG, "")[:8] + modified,
    }


def list_disagreements(comparison: Comparison) -> list[dict[str, str]]:
    """Return the photos for which most known labels are predicted by only one of the models.

    If two photos have the same number of such labels, the photo with the larger differences
    in probability comes first.
    """
    photos, new, old = comparison.photos, comparison.challenger, comparison.champion
    differ = (new.predicted != old.predicted) & is_known(photos.targets)
    sizes = (np.abs(new.probabilities - old.probabilities) * differ).sum(axis=1)
    counts = differ.sum(axis=1)
    order = np.lexsort((-sizes, -counts))[:MAX_PHOTOS]
    return [
        {
            "photo": encode_photo(photos.images[photos.rows[index]]),
            "file": photos.files[index],
            "truth": describe_truth(photos.labels, photos.targets[index]),
            "challenger": _describe_predictions(comparison, new, index),
            "champion": _describe_predictions(comparison, old, index),
        }
        for index in order.tolist()
        if counts[index]
    ]


def _describe_predictions(comparison: Comparison, predictions: Predictions, index: int) -> str:
    targets, predicted = comparison.photos.targets[index], predictions.predicted[index]
    errors = np.count_nonzero((predicted != (targets > 0)) & is_known(targets))
    names = ", ".join(np.array(comparison.photos.labels)[predicted]) or "none"
    return f"{names} ({errors} {'error' if errors == 1 else 'errors'})"
