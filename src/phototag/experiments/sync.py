"""DVC's experiments and commits to MLflow runs, where the store lacks one.

An experiment whose stages DVC found in its cache ran no code, and a clone brings results without
the store in which they were logged.
"""

import hashlib
import io
import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import yaml
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.utils import exp_refs
from dvc_data.index import DataIndexError

from phototag.base.keys import apply_overrides
from phototag.tracking.provenance import COMMIT_TAG, DIRTY_TAG
from phototag.tracking.records import log_folder, log_scores
from phototag.tracking.runs import REVISION_TAG, find_or_rebuild_run, find_runs
from phototag.tracking.store import Store

TRAINING = "reports/train/training.json"
EVALUATION = "reports/evaluate"
MODEL = "models/model.safetensors"
WORKSPACE = ""  # the revision of what is not committed yet


@dataclass(frozen=True)
class Result:
    """What git tracks of one training.

    Attributes:
        key: The content key.
        params: Nested, as it was trained with them.
        history: One row an epoch.
        scores: The evaluation's; empty where there is none of this model.
    """

    key: str
    params: dict[str, Any]
    history: pd.DataFrame
    scores: dict[str, float]


def sync_runs(store: Store, root: Path) -> tuple[list[str], list[str]]:
    """Give every DVC experiment, every commit with a result and the workspace its MLflow run.

    A run is found by the content key of its training. One that the store lacks is rebuilt from
    what git and DVC track: params, history and scores, and the reports where they are in DVC's
    cache. Each gets the experiment's name and the revision that holds it; of several commits with
    one result, the oldest. Doing it again changes nothing.

    Args:
        store: Where the runs belong.
        root: The project's folder, in a git repository or at its top.

    Returns:
        What got a run that it lacked, and what got its tags: names of experiments, or short
        hashes of commits.
    """
    added, tagged = [], []
    for name, revision in [*list_experiments(root), *_list_commits(root), ("", WORKSPACE)]:
        title = name or revision[:7] or "the workspace"
        result = _read_result(root, revision)
        if result is None:
            continue
        # A commit is satisfied with any run of its training, an experiment wants its own.
        runs = find_runs(store, result.key, name or None)
        exactly = revision == WORKSPACE
        whole = [run for run in runs if _has(run.data.metrics, result.scores, exactly)]
        if whole:
            run_id, known = whole[0].info.run_id, whole[0].data.tags.get(REVISION_TAG)
        else:
            run_id, known = _rebuild(store, root, revision, result, name), None
            added.append(title)
        if revision and known != revision and (name or known is None):
            store.client.set_tag(run_id, REVISION_TAG, revision)
            tagged.append(title)
    return added, tagged


def _has(metrics: Mapping[str, float], scores: Mapping[str, float], exactly: bool) -> bool:
    if exactly:  # as text, in which nan equals nan
        shown = {name: str(metrics.get(f"test_{name}")) for name in scores}
        same = all(shown[name] == str(float(value)) for name, value in scores.items())
        return same and "best_val_loss" in metrics
    return ("test_loss" if scores else "best_val_loss") in metrics


def _read_result(root: Path, revision: str) -> Result | None:
    """Read what git tracks; nothing where no training came to its end."""
    trained = read_revision(root, revision, TRAINING)
    history = read_revision(root, revision, "reports/train/history.csv")
    if not trained or not history:
        return None
    lock = yaml.safe_load(read_revision(root, revision, "dvc.lock") or "{}").get("stages", {})
    made = _locked(lock, "train", "outs", TRAINING)
    if made and made != hashlib.md5(trained.encode(), usedforsecurity=False).hexdigest():
        return None  # a training at work: its history may be of another one
    scores = read_revision(root, revision, f"{EVALUATION}/metrics.json")
    if _locked(lock, "train", "outs", MODEL) != _locked(lock, "evaluate", "deps", MODEL):
        scores = None  # of the model before
    params = yaml.safe_load(read_revision(root, revision, "params.yaml") or "{}")
    # params.yaml may have been changed since.
    used = lock.get("train", {}).get("params", {}).get("params.yaml", {})
    with suppress(KeyError):
        params = apply_overrides(params, used)
    return Result(
        json.loads(trained)["content_key"],
        params,
        pd.read_csv(io.StringIO(history)),
        json.loads(scores or "{}"),
    )


def _locked(lock: dict[str, Any], stage: str, kind: str, path: str) -> str | None:
    """Return the hash that dvc.lock has of a stage's file."""
    files = {each["path"]: each.get("md5") for each in lock.get(stage, {}).get(kind, [])}
    return files.get(path)


def list_experiments(root: Path) -> list[tuple[str, str]]:
    """List DVC's experiments of all commits: name and revision.

    DVC's own list waits for its lock, which a queue at work holds for hours; git's references do
    not.
    """
    with Repo(str(root)) as repo:
        listed = sorted((info.name, repo.scm.get_ref(str(info))) for info in exp_refs(repo.scm))
    return listed


def _list_commits(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the commits of all branches that changed a result, the oldest first."""
    revisions = _git(root, "log", "--branches", "--reverse", "--format=%H", "--", TRAINING)
    yield from (("", revision) for revision in (revisions or "").split())


def _rebuild(store: Store, root: Path, revision: str, result: Result, name: str) -> str:
    tags = {COMMIT_TAG: revision, DIRTY_TAG: "false"} if revision else {}
    run_id = find_or_rebuild_run(store, result.key, result.params, result.history, name, tags)
    if not result.scores:
        return run_id
    with TemporaryDirectory() as folder:
        place = Path(folder, Path(EVALUATION).name)
        if revision:
            # Without them in the cache, the figures of the run are all there is.
            with suppress(DvcException, DataIndexError, OSError):
                files, project = open_revision(root, revision)
                files.get(f"{project}{EVALUATION}", str(place), recursive=True)
        else:
            place = root / EVALUATION
        if place.exists():
            log_folder(store, run_id, place)
    log_scores(store, run_id, result.scores)
    return run_id


def read_revision(root: Path, revision: str, path: str) -> str | None:
    """Return what git tracks under a path of a revision, or None.

    Args:
        root: The project's folder; git counts from its own top.
        revision: WORKSPACE reads the file as it is.
        path: Relative to the project's folder.
    """
    if revision == WORKSPACE:
        file = root / path
        return file.read_text(encoding="utf-8") if file.is_file() else None
    return _git(root, "show", f"{revision}:./{path}")


def open_revision(root: Path, revision: str) -> tuple[DVCFileSystem, str]:
    """Open what git and DVC track at a revision; paths in it begin with the project's folder.

    Returns:
        The files, and what stands before a path relative to the project: nothing, or `folder/`.
    """
    project = (_git(root, "rev-parse", "--show-prefix") or "").rstrip("\n")
    return DVCFileSystem(str(root), rev=revision, subrepos=True), project


def _git(root: Path, *arguments: str) -> str | None:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, encoding="utf-8", check=False
    )
    return done.stdout if done.returncode == 0 else None
