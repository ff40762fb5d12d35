"""MLflow runs: how a run is created and named, and how later stages find it.

Three tags link a run with its training and with DVC:

- `phototag.content_key` is a hash of the params, data and code of the training. Later stages find
  the run by it, so no stage passes a run's id to the next.
- `phototag.dvc_experiment` is the name of the DVC experiment, which is also the run's name. It is
  empty for a plain `dvc repro`, whose run is named `repro-` and the start of the content key.
- `phototag.revision` is the commit that holds the result. `phototag sync` sets it.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Param, Run

from phototag.base.keys import flatten
from phototag.metrics.selection import step_number
from phototag.tracking.provenance import (
    experiment_name,
    has_died,
    is_of_this_machine,
    name_process,
    read_git_state,
)
from phototag.tracking.records import log_best, log_epoch, log_folder, log_scores
from phototag.tracking.store import FAILURES, Store, describe_failure

KEY_TAG = "phototag.content_key"
EXP_TAG = "phototag.dvc_experiment"
REVISION_TAG = "phototag.revision"
PROCESS_TAG = "phototag.process"
ERROR_TAG = "phototag.error"
REBUILT_TAG = "phototag.rebuilt"


def create_run(
    store: Store, key: str, params: Mapping[str, Any], tags: Mapping[str, str], exp_name: str
) -> str:
    """Create a run with status RUNNING and return its id.

    Args:
        store: MLflow store.
        key: Content key, by which the run is found again.
        params: Nested params; they are logged flat, with dotted keys.
        tags: Further tags, which override those of this process and of the git checkout.
        exp_name: Name of the DVC experiment, or an empty string for a plain `dvc repro`.
    """
    # A queued experiment runs in a copy, whose commit differs from that of the main checkout.
    origin = {PROCESS_TAG: name_process(), **read_git_state(Path.cwd())}
    run = store.client.create_run(
        store.experiment_id,
        run_name=name_run(key, exp_name),
        tags={KEY_TAG: key, EXP_TAG: exp_name, **origin, **tags},
    )
    flat = flatten(params, lists=True)
    store.client.log_batch(
        run.info.run_id, params=[Param(name, str(value)) for name, value in flat.items()]
    )
    return str(run.info.run_id)


def name_run(key: str, exp_name: str) -> str:
    """Return the name of the DVC experiment, or `repro-` and the start of the content key."""
    return exp_name or f"repro-{key[:8]}"


def find_runs(store: Store, key: str, exp_name: str | None = None) -> list[Run]:
    """Return the runs of a content key, newest first.

    Args:
        store: MLflow store.
        key: Content key.
        exp_name: Name of the DVC experiment. Omit to return the runs of all experiments.
    """
    query = f"tags.`{KEY_TAG}` = '{key}'"
    runs = store.client.search_runs([store.experiment_id], query, order_by=["start_time DESC"])
    return [run for run in runs if exp_name in (None, run.data.tags.get(EXP_TAG, ""))]


def find_run(store: Store, key: str, exp_name: str) -> Run | None:
    """Return the run of a content key and a DVC experiment, or None.

    A finished run is preferred, then a run of this machine, then the newest run. A run to which
    another process may still be writing is not returned.
    """
    return min(
        (run for run in find_runs(store, key, exp_name) if not is_active(run)),
        key=lambda run: (
            run.info.status != "FINISHED",
            not is_of_this_machine(run.data.tags.get(PROCESS_TAG, "")),
        ),
        default=None,
    )


def find_run_to_resume(store: Store, key: str, exp_name: str, resumed: bool) -> Run | None:
    """Return the run that a training continues, or None if it needs a new run.

    Args:
        store: MLflow store.
        key: Content key of the training.
        exp_name: Name of the DVC experiment.
        resumed: Whether the training continues from a checkpoint. Then the run may belong to
            another experiment, because DVC names a restarted experiment anew, and it may be
            finished, because the process can be killed after its last epoch.
    """
    own = [run for run in find_runs(store, key, exp_name) if not is_active(run)]
    if own:
        return own[0] if resumed or own[0].info.status != "FINISHED" else None
    unfinished = (run for run in find_runs(store, key) if run.info.status != "FINISHED")
    return next((run for run in unfinished if resumed and not is_active(run)), None)


def is_active(run: Run) -> bool:
    """Return whether another process, here or on another machine, may be writing to a run."""
    process = run.data.tags.get(PROCESS_TAG, "")
    return run.info.status == "RUNNING" and process != name_process() and not has_died(process)


def close_dead_runs(store: Store) -> None:
    """Set runs of this machine to KILLED if their process ended without doing so."""
    running = store.client.search_runs([store.experiment_id], "attributes.status = 'RUNNING'")
    for run in running:
        if has_died(run.data.tags.get(PROCESS_TAG, "")):
            store.client.set_tag(run.info.run_id, ERROR_TAG, "the process was killed")
            store.client.set_terminated(run.info.run_id, "KILLED")


def logged_epochs(store: Store, run_id: str) -> set[int]:
    """Return the epochs that a run has metrics of."""
    return {metric.step for metric in store.client.get_metric_history(run_id, "val_loss")}


def find_or_rebuild_run(
    store: Store,
    key: str,
    params: Mapping[str, Any],
    history: pd.DataFrame,
    exp_name: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Return the id of the run that trained the model, completed from the training history.

    The run is created if the store has none: DVC may have restored the model from its cache, or
    the training ran while the store could not be reached.

    Args:
        store: MLflow store.
        key: Content key of the model.
        params: Nested params.
        history: Training history with one row per epoch, written by `train`.
        exp_name: Name of the DVC experiment (default: the current one).
        tags: Further tags of a run that is created.
    """
    exp_name = experiment_name() if exp_name is None else exp_name
    run = find_run(store, key, exp_name)
    if run and run.info.status == "FINISHED" and "best_val_loss" in run.data.metrics:
        return str(run.info.run_id)
    if run:
        run_id = str(run.info.run_id)
    else:
        run_id = create_run(store, key, params, {REBUILT_TAG: "true", **(tags or {})}, exp_name)
    known, records = logged_epochs(store, run_id), history.to_dict("records")
    for record in records:
        if step_number(record) not in known:
            log_epoch(store, run_id, record)
    log_best(store, run_id, records)
    store.client.set_terminated(run_id, "FINISHED")
    return run_id


def record_evaluation(
    store: Store,
    key: str,
    params: Mapping[str, Any],
    history: pd.DataFrame,
    scores: Mapping[str, float],
    reports: Path,
) -> None:
    """Log the evaluation's scores and reports; if the store fails, print a warning.

    Args:
        store: MLflow store.
        key: Content key of the model.
        params: Nested params.
        history: Training history with one row per epoch, written by `train`.
        scores: Name and value of each score.
        reports: Folder of reports.
    """
    try:
        run_id = find_or_rebuild_run(store, key, params, history)
        log_folder(store, run_id, reports)
        # Scores come last: `phototag sync` takes a run with scores to be complete.
        log_scores(store, run_id, scores)
    except FAILURES as error:
        print(
            f"warning: {describe_failure(error, store.uri)}; the evaluation is in {reports}: run "
            "`phototag sync` later to log it",
            file=sys.stderr,
        )
