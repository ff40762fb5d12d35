"""Origin of a run: its process, DVC experiment, git commit and environment."""

import os
import platform
import socket
from importlib.metadata import distributions
from pathlib import Path

import psutil

from phototag.base.git import INPUTS, ask_git

COMMIT_TAG = "mlflow.source.git.commit"
DIRTY_TAG = "phototag.git_dirty"
CLOCK_TOLERANCE = 30  # seconds; adjusting the clock also shifts the start times of processes


def experiment_name() -> str:
    """Return the name of the current DVC experiment, or an empty string if there is none."""
    return os.environ.get("DVC_EXP_NAME", "")


def name_process() -> str:
    """Return `host:pid:start`, which identifies this process even if its pid is reused later."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def is_of_this_machine(process: str) -> bool:
    """Return whether a name returned by `name_process` belongs to a process on this machine."""
    return process.split(":")[0] == socket.gethostname()


def has_died(process: str) -> bool:
    """Return whether a process has ended, or False if it is on another machine."""
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
    """Return tags for the git commit and uncommitted changes, or {} outside a repository.

    Results (reports and dvc.lock) are ignored, because `dvc repro` changes them before it trains.
    """
    commit = ask_git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = ask_git(folder, "status", "--porcelain", "--untracked-files=no", *INPUTS)
    return {COMMIT_TAG: commit, DIRTY_TAG: str(bool(changes)).lower()}


def describe_environment() -> str:
    """Return a text with the version of Python, the platform and all installed packages."""
    packages = {f"{package.name}=={package.version}" for package in distributions()}
    python = f"# Python {platform.python_version()} on {platform.platform()}"
    return "\n".join([python, *sorted(packages, key=str.lower), ""])
