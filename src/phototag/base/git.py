"""Run git commands."""

import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from phototag.base.errors import InputError

# Pathspecs of the files in a folder, without the results that `dvc repro` writes.
INPUTS = ("--", ".", ":(exclude)reports", ":(exclude)dvc.lock")


def run_git(folder: Path, *arguments: str, strip: bool = True) -> str:
    """Run a git command in a folder and return its output, stripped of white space by default.

    Raises:
        InputError: git is not installed, or the command failed; the message includes git's error.
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise InputError("git is not installed: install it and run the command again") from None
    if done.returncode:
        reason = " ".join(re.sub("(?m)^(fatal|error): ", "", done.stderr).split())
        reason = reason or f"exit status {done.returncode}"
        raise InputError(f"git {arguments[0]} failed: {reason}")
    return done.stdout.strip() if strip else done.stdout


def ask_git(folder: Path, *arguments: str, strip: bool = True) -> str | None:
    """Call `run_git`, but return None if git is not installed or the command fails."""
    try:
        return run_git(folder, *arguments, strip=strip)
    except InputError:
        return None


def describe_commit(folder: Path) -> str:
    """Return the last commit that changed code, params or data, or "" outside a repository.

    Results (reports and dvc.lock) are ignored: committing the results of a run does not change the
    description, so that a repeated run writes the same bytes. For this reason, the description
    contains the date of the commit and not the current date.
    """
    commit = ask_git(folder, "rev-list", "-1", "--timestamp", "HEAD", *INPUTS)
    if not commit:
        return ""
    time, name = commit.split()
    changes = ask_git(folder, "status", "--porcelain", "--untracked-files=no", *INPUTS)
    modified = ", with uncommitted changes" if changes else ""
    return f"{name[:8]} of {datetime.fromtimestamp(int(time), UTC):%Y-%m-%d %H:%M} UTC{modified}"
