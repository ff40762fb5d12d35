"""The Streamlit server that shows a page of phototag."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from phototag.base.errors import InputError


def serve_page(page: Path, port: int, *arguments: str) -> None:
    """Replace this process by a Streamlit server that shows a page on 127.0.0.1.

    Args:
        page: Python file of the page.
        port: Port of the server.
        arguments: Arguments that the page reads from `sys.argv`.

    Raises:
        InputError: Streamlit is not installed.
    """
    if find_spec("streamlit") is None:
        raise InputError("this page needs Streamlit: run `make setup-demo`")
    print(f"Open http://127.0.0.1:{port}\nCtrl-C stops the server.", flush=True)
    options = {
        "server.address": "127.0.0.1",
        "server.port": str(port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
    }
    command = [sys.executable, "-m", "streamlit", "run", str(page)]
    command += [f"--{option}={value}" for option, value in options.items()]
    os.execv(sys.executable, [*command, "--", *arguments])
