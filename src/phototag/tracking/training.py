"""MLflow run of a training: functions that start or resume it, log each epoch, and end it."""

import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import mlflow

from phototag.tracking.provenance import describe_environment, name_process
from phototag.tracking.runs import (
    ERROR_TAG,
    EXP_TAG,
    PROCESS_TAG,
    Training,
    close_dead_runs,
    create_run,
    find_run_to_resume,
    log_best,
    log_epochs,
)
from phototag.tracking.store import FAILURES, Store, describe_failure

RETRY = 60  # after a failed call, the store is not called for this many seconds


class Stopped(Exception):  # noqa: N818 (stopping early is not an error)
    """Exception that stops a training early, for example because its trial is pruned."""


def record_training(
    store: Store, training: Training, epochs: Iterable[Mapping[str, Any]], resumed: bool = False
) -> list[dict[str, Any]]:
    """Train to the end, log each epoch to MLflow, and return the records of all epochs.

    Each step of the iterator `epochs` trains one epoch and yields its metrics. `resumed` states
    whether the training resumes from a checkpoint. If the store fails, the training continues and
    one warning is printed. Epochs that could not be logged are logged later, either together with a
    later epoch or by `phototag sync`.
    """
    history: list[dict[str, Any]] = []
    with ExitStack() as stack:
        recorder = _Recorder(store, training, resumed, stack)
        recorder.send(history)
        for record in epochs:
            history.append(dict(record))
            recorder.send(history)
        recorder.send(history, last=True)
    return history


class _Recorder:
    """Logger of epochs. If the store fails, the epochs are sent again later."""

    def __init__(self, store: Store, training: Training, resumed: bool, stack: ExitStack) -> None:
        self.store, self.training, self.resumed, self.stack = store, training, resumed, stack
        # A signal interrupts only the main thread. An interrupted call could leave database
        # connections locked, so a separate thread calls the store.
        self.worker = stack.enter_context(ThreadPoolExecutor(1))
        self.run_id = ""
        self.has_environment = False
        self.next_try = 0.0  # 0 until the first failure

    def send(self, history: Sequence[Mapping[str, Any]], last: bool = False) -> None:
        """Log all epochs that have not been logged and, if `last` is true, the best epoch."""
        if time.monotonic() < self.next_try and not last:
            return
        try:
            if not self.run_id:
                run = training_run(self.store, self.training, self.resumed)
                self.run_id = self.stack.enter_context(run)
            self.worker.submit(self._send, history, last).result()
        except FAILURES as error:
            if not self.next_try:
                print(
                    f"warning: {describe_failure(error, self.store.uri)}; training continues, and "
                    "missing epochs are logged with a later epoch or by `phototag sync`",
                    file=sys.stderr,
                )
            self.next_try = time.monotonic() + RETRY

    def _send(self, history: Sequence[Mapping[str, Any]], last: bool) -> None:
        if not self.has_environment:
            self.store.client.log_text(self.run_id, describe_environment(), "environment.txt")
            self.has_environment = True
        log_epochs(self.store, self.run_id, history)
        if last:
            log_best(self.store, self.run_id, history)


@contextmanager
def training_run(store: Store, training: Training, resumed: bool = False) -> Iterator[str]:
    """Start an MLflow run, or resume the run of a killed training. Yield the id of the run.

    A resumed run is given the name of the current DVC experiment. MLflow logs system
    metrics during the `with` block. The final status is FINISHED, KILLED (after a signal or
    `Stopped`) or FAILED.
    """
    close_dead_runs(store)
    run = find_run_to_resume(store, training, resumed)
    run_id = run.info.run_id if run else create_run(store, training)
    keeps_name = run is None or run.data.tags.get(EXP_TAG, "") == training.exp_name
    mlflow.start_run(
        run_id=run_id,
        run_name=None if keeps_name else training.run_name,
        tags={EXP_TAG: training.exp_name, PROCESS_TAG: name_process()},
        log_system_metrics=True,
    )
    # By default, SIGTERM ends the process at once. The status of the run would remain RUNNING.
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    status = "FAILED"
    try:
        yield str(run_id)
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
            mlflow.end_run(status)
