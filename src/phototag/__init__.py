"""Multi-label photo classification."""

import sys

if sys.platform == "win32":
    raise ImportError("phototag runs on Linux and macOS: on Windows, install it inside WSL 2")
