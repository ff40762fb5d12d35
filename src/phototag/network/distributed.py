"""Training in several processes: functions to start them and to exchange data between them.

In a single process, the functions that exchange data return their input unchanged.
"""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed

from phototag.base.errors import InputError

Rows = TypeVar("Rows", np.ndarray, Tensor)
Value = TypeVar("Value")

# torchrun sets all of these environment variables; many clusters and notebooks set only some.
TORCHRUN_VARIABLES = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
GRACE = 10  # seconds after a signal until a process other than the first one ends


def was_launched() -> bool:
    """Return whether torchrun started this process."""
    return os.environ.keys() >= TORCHRUN_VARIABLES


def launch(devices: int, num_nodes: int) -> bool:
    """Start the running module once per device with torchrun, and wait until all processes end.

    torchrun runs in this process. A signal that ends this process therefore ends the others too. To
    train on several machines, run the stage on each machine. torchrun reads the address of the
    first machine from the environment variable `PET_MASTER_ADDR`, and the index of this machine,
    counted from 0, from `PET_NODE_RANK`.

    Returns:
        True if processes were started and have ended. False if only one process is needed, or if
        torchrun started this process.

    Raises:
        InputError: There are several machines, but `PET_MASTER_ADDR` is not set.
    """
    if devices * num_nodes == 1 or was_launched():
        return False
    if num_nodes > 1 and "PET_MASTER_ADDR" not in os.environ:
        raise InputError(
            f"train.num_nodes is {num_nodes}, but PET_MASTER_ADDR is not set: set it to the "
            "address of the first machine on all machines, and PET_NODE_RANK to the index of each "
            "machine (0, 1, ...)"
        )
    # These imports take 2 s, and training in a single process does not need them.
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    module = sys.modules["__main__"].__spec__
    assert module is not None
    nodes = f"--nnodes={num_nodes}" if num_nodes > 1 else "--standalone"
    logging.disable(logging.ERROR)  # hide torchrun's failure report; the message below replaces it
    with tempfile.TemporaryDirectory() as logs:
        options = [nodes, f"--nproc-per-node={devices}", f"--log-dir={logs}", "-m", module.name]
        try:
            torchrun.run(torchrun.parse_args(options))
        except SignalException as received:
            sys.exit(128 + received.sigval)
        except ChildFailedError as failed:
            sys.exit(_describe_failure(failed))
    return True


def _describe_failure(failed: Any) -> str:
    """Return a one-line message with the InputError or the exit code of a failed process."""
    for failure in failed.failures.values():
        if isinstance(failure.message, dict):  # written by `report_failure`
            return f"error: {failure.message['message'].partition(': ')[2]}"
    number, first = failed.get_first_failure()
    return f"error: process {number} ended with exit code {first.exitcode}"


@contextmanager
def report_failure() -> Iterator[None]:
    """Report an InputError raised in this process to the process that started it, if any.

    All training processes raise the same InputError, and the starting process prints it once.
    """
    try:
        yield
    except InputError as error:
        if not was_launched():
            raise
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)
        sys.exit(1)


def join() -> torch.device:
    """Connect this process to the other processes, if any, and return its device."""
    local = int(os.environ["LOCAL_RANK"]) if was_launched() else 0
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if was_launched() and not distributed.is_initialized():
        if cuda:
            torch.cuda.set_device(device)
        else:
            # By default, each process would use one thread per core, which is too many in total.
            processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
        distributed.init_process_group("nccl" if cuda else "gloo")
        if rank():
            # A signal reaches all processes. If this process ended immediately, the first process
            # would lose its connection and record its MLflow run as FAILED instead of KILLED.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, _end_with_first)
    return device


def _end_with_first(*_: Any) -> None:
    """Hide errors caused by the end of the first process, and end after `GRACE` seconds."""
    sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (open to the end)
    signal.alarm(GRACE)


def rank() -> int:
    """Return the index of this process, counted from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def run_on_first(work: Callable[[], Value]) -> Value:
    """Call a function in the first process only, and return its result in all processes.

    Raises:
        InputError: The function raised an InputError. It is raised in all processes, because
            otherwise the other processes would wait for the first one forever.
    """
    if not distributed.is_initialized():
        return work()
    done: list[Any] = [None, None]  # the result and the error of the function
    if rank() == 0:
        try:
            done[0] = work()
        except InputError as error:
            done[1] = error
    distributed.broadcast_object_list(done)
    if done[1] is not None:
        raise done[1]
    result: Value = done[0]
    return result


def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors in all processes with the values in the first process."""
    if distributed.is_initialized():
        for tensor in tensors:
            distributed.broadcast(tensor, 0)


def local_share(items: Rows) -> Rows:
    """Return the part of a batch that this process handles; parts differ by at most one item."""
    count, number, processes = len(items), rank(), world_size()
    return items[number * count // processes : (number + 1) * count // processes]


def sum_over_processes(value: Tensor) -> Tensor:
    """Sum a tensor over all processes in place, and return it."""
    if distributed.is_initialized():
        distributed.all_reduce(value)
    return value


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """Concatenate the rows of all processes, in the order of their ranks."""
    if not distributed.is_initialized():
        return rows
    parts: list[Any] = [None] * world_size()
    distributed.all_gather_object(parts, rows)
    return np.concatenate([part for part in parts if len(part)] or parts)
