"""Servers that tests start on this machine."""

import socket
import subprocess
import time
import urllib.request


def free_port() -> int:
    """Find a port that nobody listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    """Ask until the server answers; a connection refused comes back at once."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(address, timeout=5).read()
        except OSError:
            continue
        return
    raise AssertionError(f"{address} did not answer in two minutes")
