"""Streamlit's server of a page."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from phototag.base.errors import InputError


def serve_page(name: str, port: int, *arguments: str) -> None:
    """Become Streamlit's server of a page of this room, on 127.0.0.1.

    Args:
        name: The page's module.
        port: Of the server.
        arguments: What the page finds in `sys.argv`.

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
    page = Path(__file__).with_name(f"{name}.py")
    command = [sys.executable, "-m", "streamlit", "run", str(page)]
    command += [f"--{name}={value}" for name, value in options.items()]
    os.execv(sys.executable, [*command, "--", *arguments])
