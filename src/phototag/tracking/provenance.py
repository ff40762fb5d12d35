"""Origin of a run: process, DVC experiment, commit and environment."""

import os
import platform
import socket
from importlib.metadata import distributions
from pathlib import Path

import psutil

from phototag.base.git import ask_git

COMMIT_TAG = "mlflow.source.git.commit"
DIRTY_TAG = "phototag.git_dirty"
CLOCK_TOLERANCE = 30  # seconds; a process's start time moves when the clock is set


def experiment_name() -> str:
    """Return the name of the DVC experiment, or an empty string for a plain `dvc repro`."""
    return os.environ.get("DVC_EXP_NAME", "")


def name_process() -> str:
    """Return `host:pid:start`, which identifies this process also after its pid is reused."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def is_of_this_machine(process: str) -> bool:
    """Return whether a process named by `name_process` belongs to this machine."""
    return process.split(":")[0] == socket.gethostname()


def has_died(process: str) -> bool:
    """Return whether a process named by `name_process` has ended; False for other machines."""
    if not is_of_this_machine(process):
        return False
    _, pid, started = process.split(":")
    try:
        found = psutil.Process(int(pid))
        if abs(found.create_time() - int(started)) > CLOCK_TOLERANCE:
            return True
        return bool(found.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def read_git_state(folder: Path) -> dict[str, str]:
    """Return tags with the commit and whether tracked files differ from it; empty without git."""
    commit = ask_git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = ask_git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return {COMMIT_TAG: commit, DIRTY_TAG: str(bool(changes)).lower()}


def describe_environment() -> str:
    """Return a text that lists Python, the platform and all installed packages."""
    packages = {f"{package.name}=={package.version}" for package in distributions()}
    python = f"# Python {platform.python_version()} on {platform.platform()}"
    return "\n".join([python, *sorted(packages, key=str.lower), ""])
