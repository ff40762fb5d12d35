"""Servers that tests start on this machine."""

import socket
import subprocess
import threading
import time
import urllib.request
from contextlib import suppress

# Of an MLflow server; its processes for jobs, which nothing here asks for, take seconds to start.
WITHOUT_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


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
