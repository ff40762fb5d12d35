"""DVC's command line, its queue of experiments, and files at a revision of git."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvc.api import DVCFileSystem
from dvc.repo import Repo
from dvc.repo.experiments.utils import exp_refs

from phototag.base.errors import InputError
from phototag.base.git import ask_git, run_git

WORKSPACE = ""  # stands for the working tree in place of a revision


def run_dvc(folder: Path, *arguments: str, show_output: bool = False) -> None:
    """Run DVC's command line in a project.

    Args:
        folder: Root of the project.
        arguments: Command and options, without `dvc`.
        show_output: Print DVC's output instead of collecting it for the error message.

    Raises:
        InputError: DVC failed; the message holds the first error that it printed.
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


def run_queued(root: Path, experiments: Mapping[str, Mapping[str, Any]], jobs: int) -> None:
    """Run the experiments that DVC does not have yet in DVC's queue, and wait for them.

    Queued experiments of the same names are queued again with the current params and code. All
    other experiments in the queue run too, because DVC runs its whole queue. A killed training
    resumes from its last checkpoint.

    Args:
        root: Root of the project.
        experiments: Name -> overrides of params.yaml (dotted key -> value).
        jobs: Number of experiments that run at the same time.

    Raises:
        InputError: DVC refused an experiment, or an experiment failed.
    """
    done = {name for name, _ in list_experiments(root)}
    running, queued = _read_queue(root)
    if outdated := sorted(experiments.keys() & queued):
        run_dvc(root, "queue", "remove", *outdated)
    for name, overrides in experiments.items():
        if name not in done | running:
            options = [f"--set-param={key}={to_hydra(value)}" for key, value in overrides.items()]
            # The stage register is left out: only `dvc repro` of the project registers models.
            run_dvc(root, "exp", "run", "--queue", "--name", name, *options, "evaluate")
    if not experiments.keys() <= done:
        command = ["exp", "run", "--run-all", "--jobs", str(jobs)]
        run_dvc(root, *command, show_output=True)
    done = {name for name, _ in list_experiments(root)}
    if failed := [name for name in experiments if name not in done]:
        raise InputError(
            f"{len(failed)} of {len(experiments)} experiments failed: read "
            f"`dvc queue logs {failed[0]}`, then run the same command again"
        )


def _read_queue(root: Path) -> tuple[set[str], set[str]]:
    """Return the names of running and of waiting experiments.

    DVC lists an experiment as running after its worker was killed; such entries are removed.
    """
    with Repo(str(root)) as repo:
        queue = repo.experiments.celery_queue
        running = {str(entry.name) for entry in queue.iter_active()}
        if running and not queue.worker_status():
            queue.kill(list(running), force=True)
            running = set()
        return running, {str(entry.name) for entry in queue.iter_queued()}


def to_hydra(value: Any) -> str:
    """Write a value in the syntax of `dvc exp run -S`: JSON with unquoted keys."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{to_hydra(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(to_hydra, value)) + "]"
    if isinstance(value, str):  # quoted, because a path may contain characters of the syntax
        return "'" + value.replace("'", r"\'") + "'"
    return json.dumps(value)


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
