"""Calls of git."""

import subprocess
from pathlib import Path

from phototag.base.errors import InputError


def run_git(folder: Path, *arguments: str) -> str:
    """Run git in a folder and return its output without the surrounding white space.

    Raises:
        InputError: git is not installed, or it failed; the message holds git's reason.
    """
    return _run(folder, *arguments).strip()


def ask_git(folder: Path, *arguments: str) -> str | None:
    """Run git in a folder and return its output, or None if git is missing or failed."""
    try:
        return run_git(folder, *arguments)
    except InputError:
        return None


def show_file(folder: Path, revision: str, path: str) -> str | None:
    """Return the whole text of a file at a revision, or None if git does not have it.

    The path is relative to `folder`, a folder in the repository.
    """
    try:
        return _run(folder, "show", f"{revision}:./{path}")
    except InputError:
        return None


def _run(folder: Path, *arguments: str) -> str:
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
    return done.stdout
