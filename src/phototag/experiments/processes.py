"""Functions that end the child processes of this process."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

PATIENCE = 30  # seconds that a child process has to end, before it is killed


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

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {each: signal.getsignal(each) for each in numbers}
    for number, handler in previous.items():
        if handler != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, leave)
    try:
        yield
    except BaseException:
        end_children()
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
