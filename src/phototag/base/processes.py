"""Locks between processes, and the end of processes when the program that started them ends."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import psutil
from filelock import FileLock, Timeout


@contextmanager
def hold_lock(path: Path, work: str) -> Iterator[None]:
    """Hold a lock file during the `with` block; wait if another process holds it.

    Args:
        path: Lock file. The id of the process that holds the lock is written to a file next to it.
        work: Clause about the process that holds the lock, for the message printed before waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = path.with_name(f"{path.name}.pid")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        pid = owner.read_text(encoding="ascii") if owner.exists() else "?"
        note = f"waiting until process {pid} ends, which {work}: to stop it, run `kill {pid}`"
        print(note, file=sys.stderr, flush=True)
        lock.acquire()
    try:
        owner.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        lock.release()


def end_with_ancestor(variable: str) -> None:
    """Send SIGTERM to this process when the program that set an environment variable has ended.

    The program is the nearest ancestor of this process that was started without the variable. It is
    the parent, or the parent of the shell in which the program started this process.
    """
    ancestor = psutil.Process().parent()
    with suppress(psutil.Error):  # the process has ended, or it belongs to another user
        while ancestor and variable in ancestor.environ():
            ancestor = ancestor.parent()

    def watch() -> None:
        with suppress(psutil.Error):
            # `is_running` can return False after a change of the system clock.
            while ancestor and ancestor.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.5)
        signal.raise_signal(signal.SIGTERM)

    Thread(target=watch, daemon=True).start()
