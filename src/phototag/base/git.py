"""Run git commands."""

import re
import subprocess
from pathlib import Path

from phototag.base.errors import InputError


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
