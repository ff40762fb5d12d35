"""The server of the demo page."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from phototag.base.errors import InputError


def serve_demo(model: Path, thresholds: Path, port: int) -> None:
    """Become Streamlit's server of `demo_page.py`, on 127.0.0.1.

    Args:
        model: The weights.
        thresholds: The thresholds that go with them.
        port: Of the server.

    Raises:
        InputError: Streamlit is not installed.
    """
    if find_spec("streamlit") is None:
        raise InputError("the page needs Streamlit: pip install 'phototag[demo]'")
    print(f"Open http://127.0.0.1:{port}\nCtrl-C stops the server.", flush=True)
    options = {
        "server.address": "127.0.0.1",
        "server.port": str(port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
    }
    page = Path(__file__).with_name("demo_page.py")
    command = [sys.executable, "-m", "streamlit", "run", str(page)]
    command += [f"--{name}={value}" for name, value in options.items()]
    os.execv(sys.executable, [*command, "--", str(model.resolve()), str(thresholds.resolve())])
