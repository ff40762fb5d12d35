"""Creation of the MLflow runs of DVC experiments and commits, if these runs are missing.

A run can be missing for two reasons: DVC restored an experiment from its cache, so no code ran and
nothing was logged; or the clone is fresh, with the results of all commits but no MLflow store.
"""

import io
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from dvc.exceptions import DvcException
from dvc_data.index import DataIndexError

from phototag.apps.results import LOCK, METRICS, list_hashes, parse_lock, parse_scores
from phototag.base.errors import InputError
from phototag.base.files import check_conflicts, parse_json
from phototag.base.git import ask_git, run_git
from phototag.base.keys import apply_overrides
from phototag.base.params import parse_values, validate_params
from phototag.experiments.dvc_tools import (
    WORKSPACE,
    list_experiments,
    open_revision,
    read_revision,
)
from phototag.tracking.description import DATASET_TAG, PHOTOS_TAG, RECIPE_TAG, name_dataset
from phototag.tracking.evaluations import find_complete_run, log_evaluation
from phototag.tracking.provenance import COMMIT_TAG, DIRTY_TAG
from phototag.tracking.recipes import FILE as RECIPES
from phototag.tracking.recipes import Recipes, name_recipe
from phototag.tracking.runs import REVISION_TAG, Training, find_or_rebuild_run
from phototag.tracking.store import Store

HISTORY = "reports/train/history.csv"
TRAINING = "reports/train/training.json"
EVALUATION = "reports/evaluate"
MODEL = "models/model.safetensors"
Result = tuple[Training, pd.DataFrame, dict[str, float]]  # training, its history and its scores


def sync_runs(
    store: Store, root: Path, history: bool = True
) -> tuple[list[str], list[str], list[str]]:
    """Create the missing MLflow runs of DVC experiments, commits and the working tree.

    A run is looked up by the content key of its training, and rebuilt from files that git and DVC
    track: params, history, scores, and any reports in DVC's cache. The run gets the time of the
    commit, and a tag with the oldest revision that has the results. If `history` is false, the only
    commit that gets a run is the one whose results and model are in the working tree.

    Returns:
        Three lists: the created runs, the runs that were tagged with a revision, and the results
        that cannot be read, with the reason. Each run is listed by the name of its experiment or by
        its short commit hash.
    """
    added, tagged, unreadable = [], [], []
    commits = list_result_commits(root)
    current = find_current_revision(root)
    if current not in commits:
        commits.append(current)
    for name, revision in [*list_experiments(root), *(("", commit) for commit in commits)]:
        title = name or revision[:7] or "the workspace"
        try:
            result = read_result(root, revision, name)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            unreadable.append(f"{title} ({kind}{error})")
            continue
        if result is None:
            continue
        is_current = revision == current and not name
        training, _, scores = result
        run = find_complete_run(store, training, scores, is_current)
        if run:
            run_id, known = run.info.run_id, run.data.tags.get(REVISION_TAG)
        elif name or history or (is_current and (not revision or (root / MODEL).is_file())):
            run_id, known = _rebuild_run(store, root, revision, result), None
            added.append(title)
        else:
            continue
        if revision and known != revision and (name or known is None):
            store.client.set_tag(run_id, REVISION_TAG, revision)
            tagged.append(title)
    return added, tagged, unreadable


def list_result_commits(root: Path) -> list[str]:
    """Return the commits of HEAD and of all branches that changed the results, oldest first."""
    tips = ("--ignore-missing", "--branches", "HEAD")  # HEAD may be detached or have no commit
    options = ("--topo-order", "--reverse", "--format=%H", "--", TRAINING, METRICS)
    return (ask_git(root, "log", *tips, *options) or "").split()


def find_current_revision(root: Path) -> str:
    """Return the commit that has the results of the working tree, or `WORKSPACE` if none has."""
    results = ("--", TRAINING, HISTORY, METRICS)
    changes = ask_git(root, "status", "--porcelain", "--untracked-files=all", *results)
    if changes != "":  # None outside git
        return WORKSPACE
    return ask_git(root, "log", "-1", "--format=%H", "--", TRAINING, METRICS) or WORKSPACE


def read_result(root: Path, revision: str, name: str) -> Result | None:
    """Return the results of an experiment at a git revision, or None if a file is missing."""
    training = read_revision(root, revision, TRAINING)
    history = read_revision(root, revision, HISTORY)
    if not training or not history:
        return None
    table = pd.read_csv(io.StringIO(check_conflicts(history, HISTORY)))
    if table["val_loss"].empty:
        raise InputError(f"{HISTORY} has no rows")
    stages = parse_lock(read_revision(root, revision, LOCK))
    metrics = read_revision(root, revision, METRICS)
    scores = parse_scores(metrics, METRICS) if metrics else {}
    trained = list_hashes(stages["train"], "outs").get(MODEL)
    if trained != list_hashes(stages["evaluate"], "deps").get(MODEL):
        scores = {}  # the scores belong to another model
    params = parse_values(read_revision(root, revision, "params.yaml") or "{}", "params.yaml")
    # params.yaml may have changed since the training. dvc.lock has the values that were used.
    for stage in (*stages, "evaluate", "train"):
        for key, value in stages[stage].get("params", {}).get("params.yaml", {}).items():
            with suppress(KeyError):
                params = apply_overrides(params, {key: value})
    facts = parse_json(training, TRAINING)
    recipes = None
    with suppress(InputError):
        text = read_revision(root, revision, str(RECIPES)) or ""
        recipes = validate_params(Recipes, parse_values(text, RECIPES), str(RECIPES))
    tags = {
        DATASET_TAG: facts.get(DATASET_TAG) or name_dataset(params),
        PHOTOS_TAG: facts.get(PHOTOS_TAG, ""),
        RECIPE_TAG: name_recipe(params, recipes),
    }
    milliseconds = None
    if revision:
        milliseconds = 1000 * int(run_git(root, "show", "--no-patch", "--format=%ct", revision))
        tags |= {COMMIT_TAG: revision, DIRTY_TAG: "false"}
    tags = {tag: value for tag, value in tags.items() if value}
    found = Training(facts["content_key"], params, tags, exp_name=name, commit_time=milliseconds)
    return found, table, scores


def _rebuild_run(store: Store, root: Path, revision: str, result: Result) -> str:
    training, history, scores = result
    run_id = find_or_rebuild_run(store, training, history)
    if not scores:
        return run_id
    with TemporaryDirectory() as folder:
        reports = root / EVALUATION
        if revision:
            reports = Path(folder, reports.name)
            # If the reports are not in DVC's cache, only the scores are added to the run.
            with suppress(DvcException, DataIndexError, OSError):
                files, prefix = open_revision(root, revision)
                files.get(f"{prefix}{EVALUATION}", str(reports), recursive=True)
        log_evaluation(store, run_id, scores, reports)
    return run_id
