"""Locks and ports, and the end of child processes together with their parent."""

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
from filelock import FileLock, Timeout

from phototag.base.errors import InputError
from phototag.base.files import report_failed_write

PATIENCE = 30  # seconds that a child process has to end, before it is killed


@contextmanager
def hold_lock(path: Path, work: str) -> Iterator[None]:
    """Hold a lock file during the `with` block; wait if another process holds it.

    Args:
        path: Lock file. The id of the process that holds the lock is written to a file next to it.
        work: Clause about the process that holds the lock, for the message printed before waiting.
    """
    owner = path.with_name(f"{path.name}.pid")
    lock = FileLock(path)
    try:
        with report_failed_write(path):
            path.parent.mkdir(parents=True, exist_ok=True)
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

    The program is the nearest ancestor of this process that was started without the variable. Call
    this function before slow imports, so that it finds the program before that can end.
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


def end_children() -> None:
    """End all child processes and their children with SIGTERM, and wait for them."""
    children = psutil.Process().children(recursive=True)
    for send in (psutil.Process.terminate, psutil.Process.kill):
        for child in children:
            with suppress(psutil.NoSuchProcess):
                send(child)
        _, children = psutil.wait_procs(children, PATIENCE)


@contextmanager
def end_children_on_exit() -> Iterator[None]:
    """End all child processes if an exception, SIGINT, SIGTERM or SIGHUP ends the block.

    Without this, children go on when their parent ends: a training would write its results later.
    """

    def leave(number: int, _: Any) -> None:
        # First end the children: `subprocess.run` kills its child at once, and their children
        # would go on.
        end_children()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    with ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                stack.callback(signal.signal, number, signal.signal(number, leave))
        try:
            yield
        except BaseException:
            end_children()
            raise


def check_port(port: int) -> None:
    """Raise an error if a port is in use; a server would retry or print an unclear message."""
    with socket.socket() as attempt:
        # The servers set this option too. Without it, a recently released port would be refused.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"port {port} cannot be used ({error.strerror}): pass another port with --port"
            ) from None
