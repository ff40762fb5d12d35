"""Several processes that train one model: torchrun starts them, PyTorch's own DDP joins them.

Fabric would do the same with a dependency more; the stage needs no more of it than this.
"""

import os
import subprocess
import sys
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed

from phototag.base.errors import InputError

Rows = TypeVar("Rows", np.ndarray, Tensor)


def relaunch(devices: int, num_nodes: int) -> bool:
    """Run this very module once a device, under torchrun, and wait for the end.

    On several machines this runs on each of them; torchrun's own variables say which is which:
    PET_MASTER_ADDR names the first machine, PET_NODE_RANK counts them from 0.

    Raises:
        InputError: There are several machines, and PET_MASTER_ADDR is not set.

    Returns:
        Whether that was done, so that nothing is left to do here; False in the processes
        themselves, and where one is enough.
    """
    if devices * num_nodes == 1 or "RANK" in os.environ:
        return False
    module = sys.modules["__main__"].__spec__
    assert module is not None
    if num_nodes > 1 and "PET_MASTER_ADDR" not in os.environ:
        raise InputError(
            f"train.num_nodes is {num_nodes}, but nothing says which machine is the first: set "
            "PET_MASTER_ADDR to its address on all, and PET_NODE_RANK to 1, 2, ... on the others"
        )
    where = [f"--nnodes={num_nodes}"] if num_nodes > 1 else ["--standalone"]
    command = [sys.executable, "-m", "torch.distributed.run", *where]
    done = subprocess.run([*command, f"--nproc-per-node={devices}", "-m", module.name])
    if done.returncode:
        sys.exit(done.returncode)
    return True


def join() -> torch.device:
    """Join the other processes, if there are any, and return this one's device."""
    local = int(os.environ.get("LOCAL_RANK", 0))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if "RANK" in os.environ and not distributed.is_initialized():
        if cuda:
            torch.cuda.set_device(device)
        else:
            # Each process would take all cores.
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_processes()))
        distributed.init_process_group("nccl" if cuda else "gloo")
    return device


def local_processes() -> int:
    """Return how many processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


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
