"""A run: made, found again, ended.

It is found by its content key, the hash of what its training depended on, so that no stage has to
pass a run's id to the next.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread, current_thread, main_thread
from typing import Any

import pandas as pd
from mlflow.entities import Param, Run
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from phototag.base.keys import flatten
from phototag.tracking.provenance import (
    describe_environment,
    experiment_name,
    has_died,
    is_of_this_machine,
    name_process,
    read_git_state,
)
from phototag.tracking.records import (
    DataInput,
    log_best,
    log_data,
    log_epoch,
    log_folder,
    log_scores,
)
from phototag.tracking.store import FAILURES, Store, explain

KEY_TAG = "phototag.content_key"
EXP_TAG = "phototag.dvc_experiment"
REVISION_TAG = "phototag.revision"
PROCESS_TAG = "phototag.process"
ERROR_TAG = "phototag.error"
REBUILT_TAG = "phototag.rebuilt"
PATIENCE = 60  # seconds for the system's last metrics


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """Raised where somebody who watches a training needs no more of it; its run is KILLED.

    Attributes:
        checkpoint: Where the state is, from which a longer training may go on.
    """

    checkpoint: Path | None = None


def create_run(
    store: Store, key: str, params: Mapping[str, Any], tags: Mapping[str, str], exp_name: str
) -> str:
    """Create a RUNNING run and return its id.

    Args:
        store: Where.
        key: The content key, by which the run is found again.
        params: Nested; logged flat, with dots.
        tags: More tags; they win over those of this process and its checkout.
        exp_name: The DVC experiment, which names the run; empty for a plain `dvc repro`.
    """
    # Of the folder a stage runs in: an experiment's copy, not the main checkout.
    own = {PROCESS_TAG: name_process(), **read_git_state(Path.cwd())}
    all_tags = {KEY_TAG: key, EXP_TAG: exp_name, **own, **tags}
    run = store.client.create_run(
        store.experiment_id, run_name=_run_name(key, exp_name), tags=all_tags
    )
    _log_params(store, run.info.run_id, params)
    return str(run.info.run_id)


def _log_params(store: Store, run_id: str, params: Mapping[str, Any]) -> None:
    entries = [Param(name, str(value)) for name, value in flatten(params, lists=True).items()]
    store.client.log_batch(run_id, params=entries)


def record_training(
    store: Store,
    key: str,
    params: Mapping[str, Any],
    epochs: Iterable[Mapping[str, Any]],
    data: DataInput,
    resumed: bool = False,
    tags: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Go through a training and log every epoch; return all its records.

    A training that was killed and goes on takes up its run again. Where the store cannot be
    reached, from the start or later, training goes on with one warning: what it could not take is
    sent as soon as it can be reached again, or by `phototag sync` later.

    Args:
        store: Where.
        key: The content key.
        params: Nested.
        epochs: The records, as training gives them.
        data: What is trained on.
        resumed: Whether training goes on from a checkpoint.
        tags: What else the run is told.
    """
    history: list[dict[str, Any]] = []
    tags = {"data_fingerprint": data.fingerprint} | dict(tags or {})
    with ExitStack() as ending:
        recording = _Recording(
            store,
            data,
            lambda: ending.enter_context(training_run(store, key, params, tags, resumed)),
        )
        recording.send(history)
        for record in epochs:
            history.append(dict(record))
            recording.send(history)
        recording.send(history, last=True)
    return history


class _Recording:
    """What of a training its run has; what the store could not take is sent with what follows."""

    def __init__(self, store: Store, data: DataInput, open_run: Callable[[], str]) -> None:
        self.store, self.data, self.open_run = store, data, open_run
        self.run_id = ""
        self.sent: set[int] | None = None  # epochs; None before the run knows its data
        self.warned = False
        self.next_try = 0.0

    def send(self, history: Sequence[Mapping[str, Any]], last: bool = False) -> None:
        """Send what is missing, and with the last epoch, which one is the best."""
        began = time.monotonic()
        if began < self.next_try and not last:
            return
        try:
            self.run_id = self.run_id or self.open_run()
            with hold_signals():
                self._send(history, last)
        except FAILURES as error:
            # Asking a store that is away takes time: a twentieth of the training's, at most.
            self.next_try = time.monotonic() + 20 * (time.monotonic() - began)
            if not self.warned:
                print(
                    f"warning: {explain(error, self.store.uri)}; training goes on, and what is "
                    "missing there is sent later, or by `phototag sync`",
                    file=sys.stderr,
                )
            self.warned = True

    def _send(self, history: Sequence[Mapping[str, Any]], last: bool) -> None:
        if self.sent is None:
            log_data(self.store, self.run_id, self.data)
            text = describe_environment()
            self.store.client.log_text(self.run_id, text, "environment.txt")
            self.sent = _logged_epochs(self.store, self.run_id)
        for record in history:
            if record["epoch"] not in self.sent:
                log_epoch(self.store, self.run_id, record, time.time_ns() // 1_000_000)
                self.sent.add(record["epoch"])
        if last:
            log_best(self.store, self.run_id, history)


@contextmanager
def hold_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of a call to the store.

    Raised in the midst of one, they may leave a lock of its connections taken, and whoever asks
    next, such as the thread of the system's metrics, waits for ever. A second signal is not held.
    """
    # Python gives signals to the main thread alone.
    main = current_thread() is main_thread()
    numbers = (signal.SIGTERM, signal.SIGINT) if main else ()
    held: list[int] = []
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def hold(number: int, _: Any) -> None:
        if held:
            restore()
            signal.raise_signal(number)
        held.append(number)

    for number in numbers:
        signal.signal(number, hold)
    try:
        yield
    finally:
        restore()
        if held:
            signal.raise_signal(held[0])


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
    draws another one each time. The run of a process that may still be at work is left alone: two
    experiments that train the same, or two machines, have one each.

    The run ends as FINISHED, KILLED (signals, `Stopped`) or FAILED (errors).
    """
    close_dead_runs(store)
    name = experiment_name()
    runs = [run for run in find_runs(store, key, name) if not _is_at_work(run)]
    if not runs and resumed:
        others = [run for run in find_runs(store, key) if not _is_at_work(run)]
        runs = [run for run in others if run.info.status != "FINISHED"]
    if runs and (resumed or runs[0].info.status != "FINISHED"):
        run_id = str(runs[0].info.run_id)
        store.client.update_run(run_id, "RUNNING", name=_run_name(key, name))
        store.client.set_tag(run_id, EXP_TAG, name)
        store.client.set_tag(run_id, PROCESS_TAG, name_process())
        if not runs[0].data.params:  # the store went away while the run was made
            _log_params(store, run_id, params)
    else:
        run_id = create_run(store, key, params, tags, name)
    # SIGTERM would end the process without a word and leave the run RUNNING for ever.
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    status = "FAILED"
    try:
        with _system_metrics(run_id):
            yield run_id
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit, Stopped):
        status = "KILLED"
        raise
    except BaseException as error:
        with suppress(*FAILURES):
            store.client.set_tag(run_id, ERROR_TAG, f"{type(error).__name__}: {error}"[:5000])
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
        with suppress(*FAILURES):
            store.client.set_terminated(run_id, status)


def _is_at_work(run: Run) -> bool:
    """Say whether another process may be writing to a run: of other machines nobody here knows."""
    process = run.data.tags.get(PROCESS_TAG, "")
    return run.info.status == "RUNNING" and process != name_process() and not has_died(process)


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
            # Its thread may wait for a store that no longer answers.
            closing = Thread(target=_finish, args=(monitor,), daemon=True)
            closing.start()
            closing.join(PATIENCE)


def _finish(monitor: SystemMetricsMonitor) -> None:
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
    """Find the run of this content key and DVC experiment, but none of another's work.

    A finished one comes first, then one of this machine, then the newest.
    """
    runs = [run for run in find_runs(store, key, exp_name) if not _is_at_work(run)]
    return min(
        runs,
        key=lambda run: (
            run.info.status != "FINISHED",
            not is_of_this_machine(run.data.tags.get(PROCESS_TAG, "")),
        ),
        default=None,
    )


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
    tags: Mapping[str, str] | None = None,
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
        tags: More tags of a run that is made.
    """
    exp_name = experiment_name() if exp_name is None else exp_name
    run = find_run(store, key, exp_name)
    if run:
        run_id = str(run.info.run_id)
    else:
        run_id = create_run(store, key, params, {REBUILT_TAG: "true", **(tags or {})}, exp_name)
    if run and not run.data.params:
        _log_params(store, run_id, params)
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


def record_evaluation(
    store: Store,
    key: str,
    params: Mapping[str, Any],
    history: pd.DataFrame,
    scores: Mapping[str, float],
    reports: Path,
) -> None:
    """Log scores and reports in the model's run; a store that fails is told of in a warning.

    Args:
        store: Where.
        key: The model's content key.
        params: All params, nested.
        history: One row an epoch, as `train` wrote it.
        scores: The headline's.
        reports: The folder of reports.
    """
    try:
        run_id = find_or_rebuild_run(store, key, params, history)
        log_folder(store, run_id, reports)
        log_scores(store, run_id, scores)  # last: a run with scores is whole, says `phototag sync`
    except FAILURES as error:
        print(
            f"warning: {explain(error, store.uri)}; all is written to {reports}, and `phototag "
            "sync` sends it later",
            file=sys.stderr,
        )
