"""DVC's queue of experiments: filled with runs, and emptied."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvc.repo import Repo

from phototag.base.errors import InputError
from phototag.experiments.claims import Run
from phototag.experiments.sync import list_experiments


def run_queued(root: Path, runs: Sequence[Run], jobs: int) -> None:
    """Run in DVC's queue what DVC has no experiment of, and wait for it.

    What an earlier call left in the queue of these runs is queued anew, as params and code are now;
    whatever else waits there runs too, as DVC empties its queue. A run that was killed goes on
    where its training stopped.

    Args:
        root: The repository.
        runs: Of `plan_runs`.
        jobs: How many at a time.

    Raises:
        InputError: DVC refused one, or one failed; the message says how to see why.
    """
    done = {name for name, _ in list_experiments(root)}
    active, queued = _tidy_queue(root)
    stale = sorted({run.name for run in runs} & queued)
    if stale:
        _dvc(root, "queue", "remove", *stale)
    for run in runs:
        if run.name not in done | active:
            overrides = [f"{key}={to_hydra(value)}" for key, value in run.overrides.items()]
            settings = [part for override in overrides for part in ("-S", override)]
            # Only the champion's own pipeline registers models.
            _dvc(root, "exp", "run", "--queue", "--name", run.name, *settings, "evaluate")
    if any(run.name not in done for run in runs):
        _dvc(root, "exp", "run", "--run-all", "--jobs", str(jobs), quiet=False)
    done = {name for name, _ in list_experiments(root)}
    failed = [run.name for run in runs if run.name not in done]
    if failed:
        raise InputError(
            f"{len(failed)} of {len(runs)} experiments failed: `dvc queue logs {failed[0]}` says "
            "why; the same command tries them again"
        )


def _tidy_queue(root: Path) -> tuple[set[str], set[str]]:
    """Forget runs whose worker is gone, and name those that run and those that wait."""
    with Repo(str(root)) as repo:
        queue = repo.experiments.celery_queue
        active = {str(entry.name) for entry in queue.iter_active()}
        if active and not queue.worker_status():
            queue.kill(list(active), force=True)
            active = set()
        return active, {str(entry.name) for entry in queue.iter_queued()}


def to_hydra(value: Any) -> str:
    """Write a value as DVC's --set-param reads it: JSON, but keys without quotes."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{to_hydra(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(to_hydra, value)) + "]"
    if isinstance(value, str):  # a path may hold whatever else means something there
        return "'" + value.replace("'", r"\'") + "'"
    return json.dumps(value)


def _dvc(root: Path, *arguments: str, quiet: bool = True) -> None:
    done = subprocess.run(
        ["dvc", *arguments], cwd=root, capture_output=quiet, text=True, check=False
    )
    if done.returncode and quiet:
        raise InputError(f"dvc {arguments[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
