"""Functions that call DVC, list its experiments, and read files at a git revision."""

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc_data.index import DataIndexError

from phototag.apps.results import LOCK, list_hashes, parse_lock
from phototag.base.errors import InputError
from phototag.base.files import content_key
from phototag.base.git import ask_git, run_git

WORKSPACE = ""  # used in place of a git revision to select the working tree


def run_dvc(
    folder: Path,
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    show_output: bool = False,
) -> None:
    """Run a DVC command, such as `"repro", "train"`, with additional environment variables.

    By default, the output of DVC is captured, so that the error message can quote it.

    Raises:
        InputError: The command failed. The message contains the first error that DVC printed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        # A stage ends when the nearest ancestor without DVC_STAGE ends (see stages/__init__.py).
        env={**os.environ, "DVC_STAGE": arguments[0], **(variables or {})},
        capture_output=not show_output,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # Ctrl-C does not reach DVC; this process ends DVC
        check=False,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout or "").strip().splitlines()
        # A failed stage first prints the reason. Then, DVC prints that the stage failed.
        errors = [line.strip() for line in lines if "rror: " in line]
        seen = "see its output above" if show_output else f"exit status {done.returncode}"
        raise InputError(f"dvc {arguments[0]} failed: {(errors or lines[-1:] or [seen])[0]}")


def list_experiments(root: Path) -> list[tuple[str, str]]:
    """Return the name and the git revision of every DVC experiment, sorted by name.

    The experiments are read from git references, because `dvc exp list` waits for DVC's lock, and
    a running queue can hold this lock for hours. Outside git, there are no experiments.
    """
    # If the same name is used with several parent commits, the newest experiment is last.
    options = ("--sort=creatordate", "--sort=refname:lstrip=4")
    shown = "--format=%(refname:lstrip=4) %(objectname)"
    pattern = "refs/exps/??/*/*"  # the last part is the name
    lines = (ask_git(root, "for-each-ref", *options, shown, pattern) or "").splitlines()
    return [(name, revision) for name, revision in map(str.split, lines)]


def read_data_hash(root: Path, revision: str) -> str:
    """Return a hash of the photos, labels and corrections from which an experiment was trained.

    The hash is read from dvc.lock at a git revision, or in the working tree for `WORKSPACE`. The
    hash is empty if dvc.lock does not list the dependencies of the stage `resize`.
    """
    files = list_hashes(parse_lock(read_revision(root, revision, LOCK))["resize"], "deps")
    hashes = [files[path] for path in files if not path.startswith(("src/", "stages/"))]
    return content_key(sorted(hashes), []) if hashes else ""


def read_revision(root: Path, revision: str, path: str) -> str | None:
    """Return the text of a file that git tracks, or None if it is not in the revision.

    `path` is relative to `root`. The revision `WORKSPACE` is the working tree.
    """
    if revision == WORKSPACE:
        file = root / path
        return file.read_text(encoding="utf-8") if file.is_file() else None
    return ask_git(root, "show", f"{revision}:./{path}", strip=False)


def open_revision(root: Path, revision: str) -> tuple[DVCFileSystem, str]:
    """Return a file system with the files that git and DVC track at a git revision.

    Returns:
        The file system, and a prefix for paths in the project: `folder/` if the project is in the
        subfolder `folder` of its git repository, otherwise an empty string.
    """
    prefix = run_git(root, "rev-parse", "--show-prefix")
    return DVCFileSystem(str(root), rev=revision, subrepos=True), prefix


def read_tracked(root: Path, revision: str, path: str) -> bytes | None:
    """Return the content of a file at a git revision, or None if neither git nor DVC has it."""
    with suppress(DvcException, DataIndexError, OSError):
        files, project = open_revision(root, revision)
        with files.open(f"{project}{path}") as file:
            content: bytes = file.read()
            return content
    return None
