"""Calls of git."""

import subprocess
from pathlib import Path

from phototag.base.errors import InputError


def run_git(folder: Path, *arguments: str, strip: bool = True) -> str:
    """Run git in a folder and return its output, by default without surrounding white space.

    Raises:
        InputError: git is not installed, or it failed; the message holds git's reason.
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
        reason = done.stderr.strip().removeprefix("fatal: ") or f"exit status {done.returncode}"
        raise InputError(f"git {arguments[0]} failed: {reason}")
    return done.stdout.strip() if strip else done.stdout


def ask_git(folder: Path, *arguments: str, strip: bool = True) -> str | None:
    """Run git as `run_git`, but return None if git is missing or failed."""
    try:
        return run_git(folder, *arguments, strip=strip)
    except InputError:
        return None
