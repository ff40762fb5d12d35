"""The Streamlit server that shows a page of phototag."""

import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

from phototag.base.errors import InputError

OPTIONS = {
    "server.address": "127.0.0.1",
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
}


def serve_page(page: Path, port: int, *arguments: str) -> None:
    """Replace this process by a Streamlit server that shows a page on 127.0.0.1.

    Args:
        page: Python file of the page.
        port: Port of the server.
        arguments: Arguments that the page reads from `sys.argv`.

    Raises:
        InputError: Streamlit is not installed, or the port is in use.
    """
    if find_spec("streamlit") is None:
        raise InputError("this page needs Streamlit: run `make setup-demo`")
    check_port(port)
    print(f"Open http://127.0.0.1:{port}\nCtrl-C stops the server.", flush=True)
    options = [f"--{option}={value}" for option, value in OPTIONS.items()]
    command = [sys.executable, "-m", "streamlit", "run", str(page), f"--server.port={port}"]
    os.execv(sys.executable, [*command, *options, "--", *arguments])


def check_port(port: int) -> None:
    """Refuse a port in use; the servers would retry for minutes or print no reason."""
    with socket.socket() as attempt:
        # The servers set this option too; it allows a port whose server has just ended.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"port {port} cannot be used ({error.strerror}): choose another one with --port"
            ) from None
