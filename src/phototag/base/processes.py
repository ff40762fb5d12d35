"""Hold lock files, check ports, and end child processes when their parent ends."""

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

PATIENCE = 30  # seconds between SIGTERM and SIGKILL to a child process


@contextmanager
def hold_lock(path: Path, work: str) -> Iterator[None]:
    """Hold a lock file during the `with` block; wait if another process holds it.

    Args:
        path: Lock file. The id of the process that holds the lock is written to a file next to it.
        work: Verb and object, such as "runs the same stage", that describe the process that holds
            the lock in the message printed before waiting.
    """
    owner = path.with_name(f"{path.name}.pid")
    lock = FileLock(path)
    try:
        with report_failed_write(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
    except Timeout:
        pid = owner.read_text(encoding="ascii") if owner.exists() else "?"
        note = f"waiting for process {pid}, which {work}: to stop the process, run `kill {pid}`"
        print(note, file=sys.stderr, flush=True)
        lock.acquire()
    try:
        owner.write_text(str(os.getpid()), encoding="ascii")
        yield
    finally:
        lock.release()


def end_with_ancestor(variable: str) -> None:
    """Send SIGTERM to this process when the program that set an environment variable has ended.

    The program is the nearest ancestor process that was started without the variable. Call this
    function before slow imports, so that the program is found before the program can end.
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
    """Send SIGTERM to all descendant processes, and SIGKILL after `PATIENCE` seconds."""
    children = psutil.Process().children(recursive=True)
    for send in (psutil.Process.terminate, psutil.Process.kill):
        for child in children:
            with suppress(psutil.NoSuchProcess):
                send(child)
        _, children = psutil.wait_procs(children, PATIENCE)


@contextmanager
def end_children_on_exit() -> Iterator[None]:
    """End all child processes if an exception, SIGINT, SIGTERM or SIGHUP ends the block.

    Otherwise, child processes would continue, and a training would still write its results.
    """

    def leave(number: int, _: Any) -> None:
        # End the descendants first: `subprocess.run` kills only its own child, and the children of
        # that process would continue.
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
    """Raise an InputError if a port is in use; servers would retry or print an unclear message."""
    with socket.socket() as attempt:
        # The servers set this option too. Without it, a recently released port would be refused.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"port {port} cannot be used ({error.strerror}): pass another port with --port"
            ) from None
