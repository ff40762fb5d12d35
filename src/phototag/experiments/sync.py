"""DVC's experiments and commits to MLflow runs, where the store lacks one.

An experiment whose stages DVC found in its cache ran no code, and a clone brings results without
the store in which they were logged.
"""

import io
import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import yaml
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.utils import exp_refs
from dvc_data.index import DataIndexError

from phototag.tracking.records import log_folder, log_scores
from phototag.tracking.runs import REVISION_TAG, find_or_rebuild_run, find_runs
from phototag.tracking.store import Store

TRAINING = "reports/train/training.json"
EVALUATION = "reports/evaluate"


def sync_runs(store: Store, root: Path) -> tuple[list[str], list[str]]:
    """Give every DVC experiment and every commit with a result its MLflow run.

    A run is found by the content key of its training. One that the store lacks is rebuilt from
    what git and DVC track: params, history and scores, and the reports where they are in DVC's
    cache. Each gets the experiment's name and the revision that holds it; of several commits with
    one result, the oldest. Doing it again changes nothing.

    Args:
        store: Where the runs belong.
        root: The repository.

    Returns:
        What got a run that it lacked, and what got its tags: names of experiments, or short
        hashes of commits.
    """
    added, tagged = [], []
    for name, revision in [*list_experiments(root), *_list_commits(root)]:
        title = name or revision[:7]
        trained = read_revision(root, revision, TRAINING)
        scores = read_revision(root, revision, f"{EVALUATION}/metrics.json")
        if trained is None or scores is None:
            continue
        key = json.loads(trained)["content_key"]
        # A commit is satisfied with any run of its training, an experiment wants its own.
        runs = find_runs(store, key, name or None)
        if runs and "test_loss" in runs[0].data.metrics:
            run_id, known = runs[0].info.run_id, runs[0].data.tags.get(REVISION_TAG)
        else:
            run_id, known = _rebuild(store, root, revision, key, json.loads(scores), name), None
            added.append(title)
        if known != revision and (name or known is None):
            store.client.set_tag(run_id, REVISION_TAG, revision)
            tagged.append(title)
    return added, tagged


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


def _rebuild(
    store: Store, root: Path, revision: str, key: str, scores: dict[str, float], name: str
) -> str:
    history = pd.read_csv(
        io.StringIO(read_revision(root, revision, "reports/train/history.csv") or "")
    )
    params = yaml.safe_load(read_revision(root, revision, "params.yaml") or "{}")
    run_id = find_or_rebuild_run(store, key, params, history, name)
    log_scores(store, run_id, scores)
    with TemporaryDirectory() as folder, suppress(DvcException, DataIndexError, OSError):
        # Without them in the cache, the figures of the run are all there is.
        place = Path(folder, Path(EVALUATION).name)
        files = DVCFileSystem(str(root), rev=revision)
        files.get(EVALUATION, str(place), recursive=True)
        log_folder(store, run_id, place)
    return run_id


def read_revision(root: Path, revision: str, path: str) -> str | None:
    """Return what git tracks under a path of a revision, or None."""
    return _git(root, "show", f"{revision}:{path}")


def _git(root: Path, *arguments: str) -> str | None:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else None
