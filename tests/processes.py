"""Two processes in one torch.distributed group, forked without the time for imports; full disks."""

import pickle
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.forks import CONTEXT

MAX_FILE = 100_000  # bytes
PATIENCE = 60  # seconds that a process waits for the other one


@contextmanager
def full_disk() -> Iterator[None]:
    """Let writes fail that would let a file grow beyond `MAX_FILE`, as they fail on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def run_together(folder: Path, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run a function in two processes; return the result or the exception of each."""
    meeting = tempfile.mktemp(dir=folder)
    ends = [CONTEXT.Pipe(duplex=False) for _ in range(2)]
    processes = [
        CONTEXT.Process(target=_join, args=(meeting, rank, end, work, arguments))
        for rank, (_, end) in enumerate(ends)
    ]
    for process in processes:
        process.start()
    try:
        assert all(receive.poll(PATIENCE) for receive, _ in ends), "a process does not return"
        return [pickle.loads(receive.recv_bytes()) for receive, _ in ends]
    finally:
        for process in processes:
            process.join(5)
            process.kill()
            process.join()


def _join(
    meeting: str, rank: int, end: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    import torch
    from torch import distributed

    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=PATIENCE / 2),
    )
    try:
        found = work(*arguments)
    except Exception as error:
        found = error
    # Pickled by value, because a tensor would be shared through the memory of this process.
    end.send_bytes(pickle.dumps(found))
    # A process that leaves early would look like a failed one.
    distributed.barrier()
