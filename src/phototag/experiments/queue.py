"""DVC's queue of experiments: add experiments and run the queue."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvc.repo import Repo

from phototag.base.errors import InputError
from phototag.experiments.dvc_tools import list_experiments, run_dvc


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
            options = [
                part
                for key, value in overrides.items()
                for part in ("-S", f"{key}={to_hydra(value)}")
            ]
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
