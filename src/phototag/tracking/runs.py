"""A run: made, found again, ended.

It is found by its content key, the hash of what its training depended on, so that no stage has to
pass a run's id to the next.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import pandas as pd
from mlflow.entities import Param, Run
from mlflow.exceptions import MlflowException
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from phototag.tracking.provenance import (
    describe_environment,
    has_died,
    name_process,
    read_git_state,
)
from phototag.tracking.records import DataInput, flatten, log_best, log_data, log_epoch
from phototag.tracking.store import Store, project_root

KEY_TAG = "phototag.content_key"
EXP_TAG = "phototag.dvc_experiment"
REVISION_TAG = "phototag.revision"
PROCESS_TAG = "phototag.process"
ERROR_TAG = "phototag.error"


def experiment_name() -> str:
    """Return the DVC experiment's name, or nothing for a plain `dvc repro`."""
    return os.environ.get("DVC_EXP_NAME", "")


def create_run(
    store: Store, key: str, params: Mapping[str, Any], tags: Mapping[str, str], exp_name: str
) -> str:
    """Create a RUNNING run and return its id.

    Args:
        store: Where.
        key: The content key, by which the run is found again.
        params: Nested; logged flat, with dots.
        tags: More tags.
        exp_name: The DVC experiment, which names the run; empty for a plain `dvc repro`.
    """
    all_tags = {KEY_TAG: key, EXP_TAG: exp_name, **read_git_state(project_root()), **tags}
    run = store.client.create_run(
        store.experiment_id, run_name=_run_name(key, exp_name), tags=all_tags
    )
    entries = [Param(name, str(value)) for name, value in flatten(params).items()]
    store.client.log_batch(run.info.run_id, params=entries)
    return str(run.info.run_id)


def record_training(
    store: Store,
    key: str,
    params: Mapping[str, Any],
    epochs: Iterable[Mapping[str, Any]],
    data: DataInput,
    resumed: bool = False,
) -> list[dict[str, Any]]:
    """Go through a training and log every epoch; return all its records.

    A training that was killed and goes on takes up its run again. Where the store cannot be
    reached, training goes on with one warning: what it could not take is sent as soon as it can be
    reached again, or by `phototag sync` later.

    Args:
        store: Where.
        key: The content key.
        params: Nested.
        epochs: The records, as training gives them.
        data: What is trained on.
        resumed: Whether training goes on from a checkpoint.
    """
    history: list[dict[str, Any]] = []
    tags = {"data_fingerprint": data.fingerprint}
    with training_run(store, key, params, tags, resumed) as run_id:
        sent, warned = _logged_epochs(store, run_id), False
        log_data(store, run_id, data)
        store.client.log_text(run_id, describe_environment(), "environment.txt")
        for record in epochs:
            history.append(dict(record))
            try:
                for unsent in history:
                    if unsent["epoch"] not in sent:
                        log_epoch(store, run_id, unsent, time.time_ns() // 1_000_000)
                        sent.add(unsent["epoch"])
            except (MlflowException, OSError) as error:
                if not warned:
                    print(
                        f"warning: MLflow cannot be reached ({type(error).__name__}); training "
                        "goes on, and what is missing there is sent later, or by `phototag sync`",
                        file=sys.stderr,
                    )
                warned = True
        with suppress(MlflowException, OSError):
            log_best(store, run_id, history)
    return history


@contextmanager
def training_run(
    store: Store,
    key: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    resumed: bool = False,
) -> Iterator[str]:
    """Yield a run's id: of a new one, or of the same training's, killed before.

    A killed training's run may have ended as finished: `resumed` takes it up all the same. A run
    that `dvc exp run` left unfinished gets the name of the experiment that goes on with it: DVC
    draws another one each time.

    The run ends as FINISHED, KILLED (signals) or FAILED (errors).
    """
    close_dead_runs(store)
    name = experiment_name()
    runs = find_runs(store, key, name)
    if not runs and resumed:
        runs = [run for run in find_runs(store, key) if run.info.status != "FINISHED"]
    if runs and (resumed or runs[0].info.status != "FINISHED"):
        run_id = str(runs[0].info.run_id)
        store.client.update_run(run_id, "RUNNING", name=_run_name(key, name))
        store.client.set_tag(run_id, EXP_TAG, name)
    else:
        run_id = create_run(store, key, params, tags, name)
    store.client.set_tag(run_id, PROCESS_TAG, name_process())
    # SIGTERM would end the process without a word and leave the run RUNNING for ever.
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    status = "FAILED"
    try:
        with _system_metrics(run_id):
            yield run_id
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    except BaseException as error:
        with suppress(MlflowException, OSError):
            store.client.set_tag(run_id, ERROR_TAG, f"{type(error).__name__}: {error}"[:5000])
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
        with suppress(MlflowException, OSError):
            store.client.set_terminated(run_id, status)


@contextmanager
def _system_metrics(run_id: str) -> Iterator[None]:
    """Log how busy processor, memory, disk, network and GPU are, meanwhile; never fatal."""
    monitor = None
    with suppress(Exception):
        monitor = SystemMetricsMonitor(run_id, resume_logging=True)
        monitor.start()
    try:
        yield
    finally:
        if monitor:
            with suppress(Exception):
                monitor.finish()


def close_dead_runs(store: Store) -> None:
    """End runs as KILLED whose process on this machine is gone: nobody else will."""
    running = store.client.search_runs(
        [store.experiment_id], "attributes.status = 'RUNNING'", max_results=1000
    )
    for run in running:
        if has_died(run.data.tags.get(PROCESS_TAG, "")):
            store.client.set_tag(run.info.run_id, ERROR_TAG, "its process was killed")
            store.client.set_terminated(run.info.run_id, "KILLED")


def _logged_epochs(store: Store, run_id: str) -> set[int]:
    return {metric.step for metric in store.client.get_metric_history(run_id, "val_loss")}


def find_run(store: Store, key: str, exp_name: str) -> Run | None:
    """Find the run of this content key and DVC experiment: the newest, a finished one first."""
    runs = find_runs(store, key, exp_name)
    return min(runs, key=lambda run: run.info.status != "FINISHED", default=None)


def _run_name(key: str, exp_name: str) -> str:
    return exp_name or f"repro-{key[:8]}"


def find_runs(store: Store, key: str, exp_name: str | None = None) -> list[Run]:
    """Find all runs of this content key, and DVC experiment if one is named, the newest first."""
    query = f"tags.`{KEY_TAG}` = '{key}'"
    runs = store.client.search_runs([store.experiment_id], query, order_by=["start_time DESC"])
    if exp_name is None:
        return list(runs)
    return [run for run in runs if run.data.tags.get(EXP_TAG, "") == exp_name]


def find_or_rebuild_run(
    store: Store,
    key: str,
    params: Mapping[str, Any],
    history: pd.DataFrame,
    exp_name: str | None = None,
) -> str:
    """Return the id of the run that trained the model; what it lacks comes from the history.

    A model that DVC restored from its cache was not trained here, or not in this experiment, so
    the store has no run of it.

    Args:
        store: Where.
        key: The model's content key.
        params: All params, nested.
        history: One row an epoch, as `train` wrote it.
        exp_name: The DVC experiment; the one that runs, where none is given.
    """
    exp_name = experiment_name() if exp_name is None else exp_name
    run = find_run(store, key, exp_name)
    if run:
        run_id = str(run.info.run_id)
    else:
        run_id = create_run(store, key, params, {"phototag.rebuilt": "true"}, exp_name)
    logged = store.client.get_metric_history(run_id, "val_loss")
    start = store.client.get_run(run_id).info.start_time
    # After what is there, so that the epochs stand in order also by time.
    last = max((metric.timestamp for metric in logged), default=start)
    known = {metric.step for metric in logged}
    for record in history.to_dict("records"):
        if int(record["epoch"]) not in known:
            log_epoch(store, run_id, dict(record), last + int(record["epoch"]))
    if not run or "best_val_loss" not in run.data.metrics:
        log_best(store, run_id, history.to_dict("records"))
    if not run or run.info.status != "FINISHED":
        store.client.set_terminated(run_id, "FINISHED")
    return run_id
