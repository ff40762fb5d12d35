"""Functions that call DVC, run its experiment queue, and read files at a git revision."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvc.api import DVCFileSystem
from dvc.repo import Repo

from phototag.base.errors import InputError
from phototag.base.git import ask_git, run_git

WORKSPACE = ""  # used in place of a git revision to select the working tree


def run_dvc(folder: Path, *arguments: str, show_output: bool = False) -> None:
    """Run a DVC command in a project.

    Args:
        folder: Root of the project.
        arguments: Command and its arguments, such as `"exp", "run"`, without the word `dvc`.
        show_output: Whether to print DVC's output. By default, the output is captured, so that
            the error message can quote it.

    Raises:
        InputError: The command failed. The message contains the first error that DVC printed.
    """
    done = subprocess.run(
        ["dvc", *arguments],
        cwd=folder,
        capture_output=not show_output,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout or "").strip().splitlines()
        # A failed stage first prints the reason. Then, DVC prints that the stage failed.
        errors = [line.strip() for line in lines if "rror: " in line]
        reason = (errors or lines[-1:] or [f"exit status {done.returncode}"])[0]
        raise InputError(f"dvc {arguments[0]} failed: {reason}")


def list_experiments(root: Path) -> list[tuple[str, str]]:
    """Return the name and the git revision of every DVC experiment, sorted by name.

    The experiments are read from git references, because `dvc exp list` waits for DVC's lock, and
    a running queue can hold this lock for hours. Outside git, there are no experiments.
    """
    pattern = "refs/exps/??/*/*"  # the last part is the name
    output = "--format=%(refname:lstrip=4) %(objectname)"
    lines = (ask_git(root, "for-each-ref", output, pattern) or "").splitlines()
    return sorted((name, revision) for name, revision in map(str.split, lines))


def run_queued(root: Path, experiments: Mapping[str, Mapping[str, Any]], jobs: int) -> None:
    """Run all missing experiments through DVC's queue, and wait until they have finished.

    Experiments that already exist are skipped. Experiments that are still waiting in the queue are
    queued again with the current params and code. DVC always runs its whole queue, including other
    experiments. An experiment whose training was killed resumes from its last checkpoint.

    Args:
        root: Root of the project.
        experiments: Mapping from the name of each experiment to the params that it changes (mapping
            from dotted keys of params.yaml to values).
        jobs: Number of experiments to run in parallel.

    Raises:
        InputError: DVC could not queue an experiment, or an experiment failed.
    """
    done = {name for name, _ in list_experiments(root)}
    running, queued = _read_queue(root)
    if outdated := sorted(experiments.keys() & queued):
        run_dvc(root, "queue", "remove", *outdated)
    for name, overrides in experiments.items():
        if name not in done | running:
            options = [f"--set-param={key}={to_hydra(value)}" for key, value in overrides.items()]
            # The experiments end after `evaluate`, so that their models are not registered.
            run_dvc(root, "exp", "run", "--queue", "--name", name, *options, "evaluate")
    if not experiments.keys() <= done:
        command = ["exp", "run", "--run-all", "--jobs", str(jobs)]
        run_dvc(root, *command, show_output=True)
    done = {name for name, _ in list_experiments(root)}
    if failed := [name for name in experiments if name not in done]:
        raise InputError(
            f"{len(failed)} of {len(experiments)} experiments failed: see the error with "
            f"`dvc queue logs {failed[0]}`, fix its cause and run the same command again"
        )


def _read_queue(root: Path) -> tuple[set[str], set[str]]:
    """Return the names of the running experiments, and the names of the queued experiments.

    If a worker is killed, DVC still lists its experiment as running. Such entries are removed.
    """
    with Repo(str(root)) as repo:
        queue = repo.experiments.celery_queue
        running = {str(entry.name) for entry in queue.iter_active()}
        if running and not queue.worker_status():
            queue.kill(list(running), force=True)
            running = set()
        return running, {str(entry.name) for entry in queue.iter_queued()}


def to_hydra(value: Any) -> str:
    """Format a value for `dvc exp run --set-param`: as JSON with unquoted keys."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{to_hydra(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(to_hydra, value)) + "]"
    if isinstance(value, str):  # quoted, because a string may contain special characters
        return "'" + value.replace("'", r"\'") + "'"
    return json.dumps(value)


def read_revision(root: Path, revision: str, path: str) -> str | None:
    """Return the text of a file that git tracks, or None if it is not in the revision.

    Args:
        root: Root of the project.
        revision: Git revision, or `WORKSPACE` to read the file from the working tree.
        path: Path of the file relative to `root`.
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
