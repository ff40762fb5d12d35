"""DVC's command line, its experiments, and files at a revision of git."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from dvc.api import DVCFileSystem
from dvc.repo import Repo
from dvc.repo.experiments.utils import exp_refs

from phototag.base.errors import InputError
from phototag.base.git import ask_git, run_git

WORKSPACE = ""  # stands for the working tree in place of a revision


def run_dvc(
    folder: Path,
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    show_output: bool = False,
) -> None:
    """Run DVC's command line in a project.

    Args:
        folder: Root of the project.
        arguments: Command and options, without `dvc`.
        variables: Environment variables to set (default: none).
        show_output: Print DVC's output instead of collecting it for the error message.

    Raises:
        InputError: DVC failed; the message holds the first error that it printed.
    """
    done = subprocess.run(
        ["dvc", *arguments],
        cwd=folder,
        env=os.environ | dict(variables or {}),
        capture_output=not show_output,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout or "").strip().splitlines()
        # A failed stage prints the reason first, and DVC then prints that the stage failed.
        errors = [line.strip() for line in lines if "rror: " in line]
        reason = (errors or lines[-1:] or [f"exit status {done.returncode}"])[0]
        raise InputError(f"dvc {arguments[0]} failed: {reason}")


def list_experiments(root: Path) -> list[tuple[str, str]]:
    """Return name and revision of all DVC experiments, sorted by name.

    The experiments are read from git's references, because `dvc exp list` waits for DVC's lock,
    which a running queue holds for hours.
    """
    with Repo(str(root)) as repo:
        return sorted((info.name, repo.scm.get_ref(str(info))) for info in exp_refs(repo.scm))


def read_revision(root: Path, revision: str, path: str) -> str | None:
    """Return the text of a file that git tracks, or None if the revision does not have it.

    Args:
        root: Root of the project.
        revision: A revision of git, or `WORKSPACE` for the file in the working tree.
        path: Path relative to `root`.
    """
    if revision == WORKSPACE:
        file = root / path
        return file.read_text(encoding="utf-8") if file.is_file() else None
    return ask_git(root, "show", f"{revision}:./{path}", strip=False)


def open_revision(root: Path, revision: str) -> tuple[DVCFileSystem, str]:
    """Open the files that git and DVC track at a revision.

    Returns:
        The file system, and the prefix of paths in it: empty, or `folder/` if the project is not
        at the top of its git repository.
    """
    prefix = run_git(root, "rev-parse", "--show-prefix")
    return DVCFileSystem(str(root), rev=revision, subrepos=True), prefix
