"""Where a result came from: process, commit, environment."""

import hashlib
import os
import platform
import socket
import subprocess
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path

import psutil

COMMIT_TAG = "mlflow.source.git.commit"
DIRTY_TAG = "phototag.git_dirty"
CLOCK_SHIFT = 30  # seconds by which a process's start may seem to move


def experiment_name() -> str:
    """Return the DVC experiment's name, or nothing for a plain `dvc repro`."""
    return os.environ.get("DVC_EXP_NAME", "")


def name_machine() -> str:
    """Name this machine, or this container on it: many of them have one host name."""
    known = ""
    with suppress(OSError):
        known += Path("/etc/machine-id").read_text()
    with suppress(OSError):
        known += str(Path("/proc/self/ns/pid").readlink())
    return f"{socket.gethostname()}-{hashlib.sha256(known.encode()).hexdigest()[:8]}"


def name_process() -> str:
    """Name this process so that no other, also a later one, has the same name."""
    return f"{name_machine()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def is_of_this_machine(process: str) -> bool:
    """Say whether a process of that name runs, or ran, on this machine."""
    return process.rpartition(":")[0].rpartition(":")[0] == name_machine()


def has_died(process: str) -> bool:
    """Say whether a process of that name is gone; of another machine's nobody here knows."""
    number, _, started = process.removeprefix(f"{name_machine()}:").partition(":")
    if not (is_of_this_machine(process) and number.isdecimal() and started.isdecimal()):
        return False
    try:
        there = psutil.Process(int(number))
        # The start is counted from the clock, which may be set right in between.
        if abs(there.create_time() - int(started)) > CLOCK_SHIFT:
            return True
        return bool(there.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def read_git_state(folder: Path) -> dict[str, str]:
    """Return the commit and whether the folder differs from it; nothing outside of git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        dirty = bool(_git(folder, "status", "--porcelain", "--untracked-files=no", "--", "."))
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {COMMIT_TAG: commit, DIRTY_TAG: str(dirty).lower()}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()


def describe_environment() -> str:
    """Tell Python, machine and every installed package, one a line."""
    import torch  # takes seconds, which an experiment that does not register has no need of

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    packages = {f"{each.name}=={each.version}" for each in distributions()}
    lines = [
        f"# Python {platform.python_version()} on {platform.platform()}",
        f"# {psutil.cpu_count(logical=False) or psutil.cpu_count()} CPU cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB; GPUs: {', '.join(gpus) or 'none'}",
        *sorted(packages, key=str.lower),
    ]
    return "\n".join(lines) + "\n"
