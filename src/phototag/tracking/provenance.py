"""Where a result came from: process, commit, environment."""

import os
import platform
import socket
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import psutil
import torch


def name_process() -> str:
    """Name this process so that no other, also a later one, has the same name."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def has_died(process: str) -> bool:
    """Say whether a process of that name is gone; of another machine's nobody here knows."""
    host, _, rest = process.rpartition(":")[0].rpartition(":")
    started = process.rpartition(":")[2]
    if host != socket.gethostname() or not (rest.isdecimal() and started.isdecimal()):
        return False
    try:
        return f"{psutil.Process(int(rest)).create_time():.0f}" != started
    except psutil.NoSuchProcess:
        return True


def read_git_state(root: Path) -> dict[str, str]:
    """Return the commit and whether the checkout differs from it; nothing outside of git."""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"mlflow.source.git.commit": commit, "phototag.git_dirty": str(dirty).lower()}


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL).strip()


def describe_environment() -> str:
    """Tell Python, machine and every installed package, one a line."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    packages = {f"{each.name}=={each.version}" for each in distributions()}
    lines = [
        f"# Python {platform.python_version()} on {platform.platform()}",
        f"# {psutil.cpu_count(logical=False) or psutil.cpu_count()} CPU cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB; GPUs: {', '.join(gpus) or 'none'}",
        *sorted(packages, key=str.lower),
    ]
    return "\n".join(lines) + "\n"
