"""Some processes that PyTorch joins, for what several do together; they start in a moment."""

import pickle
import tempfile
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.forks import CONTEXT

PATIENCE = 60  # seconds, where a process waits for one that has left


def run_together(folder: Path, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run a function of a module in two processes; what each returned, or the error it raised."""
    meeting = tempfile.mktemp(dir=folder)
    ends = [CONTEXT.Pipe(duplex=False) for _ in range(2)]
    processes = [
        CONTEXT.Process(target=_join, args=(meeting, rank, end, work, arguments))
        for rank, (_, end) in enumerate(ends)
    ]
    for process in processes:
        process.start()
    try:
        assert all(receive.poll(PATIENCE) for receive, _ in ends), "a process waits for ever"
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
    # By value: a tensor that is sent as such lies in its process's memory.
    end.send_bytes(pickle.dumps(found))
    # Whoever were to leave now would look like one that failed.
    distributed.barrier()
