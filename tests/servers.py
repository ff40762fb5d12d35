"""Servers that tests start on this machine."""

import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

# Of an MLflow server; its processes for jobs, which nothing here asks for, take seconds to start.
WITHOUT_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


PATIENCE = 30  # seconds that a server has to end


def free_port() -> int:
    """Find a port that nobody listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Ask until the server answers; asking without a pause would take a core from its start."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        with suppress(OSError):
            urllib.request.urlopen(address, timeout=5).read()
            return
        with suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"the server ended with {server.wait(0.2)}")
    raise AssertionError(f"{address} did not answer in five minutes")


@contextmanager
def run_server(
    command: Sequence[str],
    health: str,
    folder: Path,
    environment: Mapping[str, str],
    log: Path | None = None,
) -> Iterator[Path]:
    """Run a server while the block lasts, and yield its log.

    Args:
        command: What starts it.
        health: The address that answers as soon as it serves.
        folder: Where it runs.
        environment: Its variables.
        log: The file; by default one in `folder`.
    """
    log = log or folder / "log"
    with log.open("w") as out:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=out, start_new_session=True
        )
    try:
        wait_for(health, server)
        yield log
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(PATIENCE)
        # One that waits for its clients would wait for as long as a browser is open.
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


class Gate:
    """A port that leads to a server on this machine while it is open."""

    def __init__(self, server: int) -> None:
        self.server = server
        self.port = free_port()
        self.open()

    def open(self) -> None:
        """Let connections through."""
        self.ends: list[socket.socket] = [socket.create_server(("127.0.0.1", self.port))]
        threading.Thread(target=self._admit, args=(self.ends[0],), daemon=True).start()

    def shut(self) -> None:
        """Break every connection, and refuse new ones."""
        for end in self.ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _admit(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self.server))
                self.ends += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=_pass_on, args=ends, daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(2**16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
