"""Streamlit server for the pages of `phototag demo` and `phototag review`."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from phototag.base.errors import InputError
from phototag.base.processes import check_port

OPTIONS = {
    "server.address": "127.0.0.1",
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "logger.level": "warning",
}


def serve_page(page: Path, port: int, *arguments: str) -> None:
    """Replace this process with a Streamlit server that serves a page on 127.0.0.1.

    Args:
        page: Path of the Python file that draws the page.
        port: Port that the server listens on.
        arguments: Command-line arguments that the page reads from `sys.argv`.

    Raises:
        InputError: Streamlit is not installed, or the port is in use.
    """
    if find_spec("streamlit") is None:
        raise InputError("this page needs Streamlit: run `make setup-demo`")
    check_port(port)
    print(f"Open http://127.0.0.1:{port}\nPress Ctrl-C to stop the server.", flush=True)
    options = [f"--{option}={value}" for option, value in OPTIONS.items()]
    command = [sys.executable, "-m", "streamlit", "run", str(page), f"--server.port={port}"]
    # Old versions of Streamlit ignore this variable, but refuse an unknown option.
    os.environ["STREAMLIT_LOGGER_HIDE_WELCOME_MESSAGE"] = "true"
    os.execv(sys.executable, [*command, *options, "--", *arguments])
