"""Several processes that train one model: torchrun starts them, PyTorch's own DDP joins them.

Fabric would do the same with a dependency more; the stage needs no more of it than this.
"""

import ctypes
import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed

from phototag.base.errors import InputError

Rows = TypeVar("Rows", np.ndarray, Tensor)
Value = TypeVar("Value")

LAUNCHED = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}
GRACE = 10  # seconds that the other processes have to end after the first
PR_SET_PDEATHSIG = 1  # of Linux's prctl.h


def was_launched() -> bool:
    """Say whether a launcher started this process as one of several; torchrun sets all of these.

    RANK alone, or LOCAL_RANK, stands in the environment of many a notebook and cluster.
    """
    return os.environ.keys() >= LAUNCHED


def relaunch(devices: int, num_nodes: int) -> bool:
    """Run this very module once a device, by torchrun's launcher, and wait for the end.

    The launcher works within this process: a signal that ends this process ends the others. What
    went wrong in one of them is told here, once.

    On several machines this runs on each of them; torchrun's own variables say which is which:
    PET_MASTER_ADDR names the first machine, PET_NODE_RANK counts them from 0.

    Raises:
        InputError: There are several machines, and PET_MASTER_ADDR is not set; or a process raised
            one.

    Returns:
        Whether that was done, so that nothing is left to do here; False in the processes
        themselves, and where one is enough.
    """
    if devices * num_nodes == 1 or was_launched():
        return False
    if num_nodes > 1 and "PET_MASTER_ADDR" not in os.environ:
        raise InputError(
            f"train.num_nodes is {num_nodes}, but nothing says which machine is the first: set "
            "PET_MASTER_ADDR to its address on all, and PET_NODE_RANK to 1, 2, ... on the others"
        )
    # 2 s, for those alone who need it.
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    module = sys.modules["__main__"].__spec__
    assert module is not None
    where = f"--nnodes={num_nodes}" if num_nodes > 1 else "--standalone"
    logging.disable(logging.ERROR)  # torchrun's own words; ours follow
    with tempfile.TemporaryDirectory() as logs:
        options = [where, f"--nproc-per-node={devices}", f"--log-dir={logs}", "-m", module.name]
        try:
            torchrun.run(torchrun.parse_args(options))
        except SignalException as ended:
            sys.exit(128 + ended.sigval)
        except ChildFailedError as failed:
            number, failure = failed.get_first_failure()
            _tell(Path(logs), f"process {number} ended with {failure.exitcode}")
    return True


def _tell(logs: Path, otherwise: str) -> NoReturn:
    """Say what went wrong in the processes, of which each left a file, or none."""
    files = sorted(logs.rglob("error.json"), key=lambda path: path.stat().st_mtime_ns)
    told = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    # Where one ends with an error, the others lose their connection to it: not theirs is told.
    for error in told:
        if error["mendable"]:
            raise InputError(error["message"])
    sys.exit(told[0]["message"] if told else f"error: {otherwise}")


@contextmanager
def report_failure() -> Iterator[None]:
    """Leave what goes wrong in one of several processes to the one that started them.

    Torchrun names a file for it. Each process would tell the same, or that another one is gone.
    """
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    try:
        yield
    except KeyboardInterrupt:
        if not was_launched():
            raise
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if not file or not was_launched():
            raise
        mendable = isinstance(error, InputError)
        message = str(error) if mendable else traceback.format_exc()
        entry = {"message": message, "timestamp": int(time.time()), "mendable": mendable}
        Path(file).write_text(json.dumps(entry), encoding="utf-8")
        sys.stdout.flush()
        # Not by way of the interpreter's end: gloo's threads, which still wait for the others,
        # would end the process with words of their own.
        os._exit(1)


def join() -> torch.device:
    """Join the other processes, if there are any, and return this one's device."""
    local = int(os.environ["LOCAL_RANK"]) if was_launched() else 0
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if was_launched() and not distributed.is_initialized():
        if cuda:
            torch.cuda.set_device(device)
        else:
            # Each process would take all cores.
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_processes()))
        distributed.init_process_group("nccl" if cuda else "gloo")
        _end_with_the_first()
    return device


def _end_with_the_first() -> None:
    """Let the first process, which keeps the record, say when all end.

    A signal reaches all of them. If the others ended at once, the first would lose its connection
    within a step, and note a failure where somebody stopped it.
    """
    if sys.platform == "linux":
        # The launcher may be killed so that it cannot pass on a signal.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if rank():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: signal.alarm(GRACE))


def local_processes() -> int:
    """Return how many processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if was_launched() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def broadcast(value: Any) -> Any:
    """Return the first process's value, in all of them."""
    if not distributed.is_initialized():
        return value
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def from_first(work: Callable[[], Value]) -> Value:
    """Do something in the first process alone, and return its result in all of them.

    What the others do next must not hang on whether it succeeded: they would wait for a process
    that has left.

    Raises:
        InputError: The work raised it; it is raised in all.
    """
    done: tuple[Any, InputError | None] = (None, None)
    if rank() == 0:
        try:
            done = (work(), None)
        except InputError as error:
            done = (None, error)
    result: Value
    result, caught = broadcast(done)
    if caught is not None:
        raise caught
    return result


def copy_first(tensors: Iterable[Tensor]) -> None:
    """Give every process the first one's values of these tensors, in place."""
    if distributed.is_initialized():
        for tensor in tensors:
            distributed.broadcast(tensor, 0)


def check_same(value: Any, what: str) -> None:
    """Make sure that all processes hold an equal value.

    Raises:
        InputError: They do not, in all of them alike.
    """
    if distributed.is_initialized():
        values: list[Any] = [None] * world_size()
        distributed.all_gather_object(values, value)
        if any(other != values[0] for other in values):
            raise InputError(
                f"the machines have different {what}: give all of them the same params.yaml, data/ "
                "and checkout"
            )


def own_share(items: Rows) -> Rows:
    """Return this process's part of a batch; the parts differ by one at the most."""
    count, number, processes = len(items), rank(), world_size()
    return items[number * count // processes : (number + 1) * count // processes]


def sum_over_processes(value: Tensor) -> Tensor:
    """Add up a tensor over all processes, in place, and return it."""
    if distributed.is_initialized():
        distributed.all_reduce(value)
    return value


def gather_rows(rows: np.ndarray) -> np.ndarray:
    """Join the rows that each process holds, in the order of the processes."""
    if not distributed.is_initialized():
        return rows
    parts: list[np.ndarray | None] = [None] * world_size()
    distributed.all_gather_object(parts, rows)
    return np.concatenate([part for part in parts if part is not None])
