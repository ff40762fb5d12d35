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

# MLflow's server then starts no processes for jobs, which would take seconds.
WITHOUT_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


PATIENCE = 30  # seconds until a server that does not stop is killed


def free_port() -> int:
    """Return a port that no process listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers; the pause between requests leaves it the processor."""
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
    """Run a server during the block and yield its log file.

    Args:
        command: Command that starts the server.
        health: URL that answers as soon as the server is ready.
        folder: Working directory of the server.
        environment: Environment variables of the server.
        log: Log file (default: `log` in `folder`).
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
        # A server that waits for open connections would wait for the browser.
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


class Gate:
    """A proxy port that forwards to a server on this machine while it is open."""

    def __init__(self, server: int) -> None:
        self.server = server
        self.port = free_port()
        self.open()

    def open(self) -> None:
        """Accept connections."""
        self.ends: list[socket.socket] = [socket.create_server(("127.0.0.1", self.port))]
        threading.Thread(target=self._admit, args=(self.ends[0],), daemon=True).start()

    def shut(self) -> None:
        """Close all connections and refuse new ones."""
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
