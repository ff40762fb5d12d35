"""Worker processes of a study.

`phototag tune STUDY -j 2` starts two workers. Each worker is a process `python -m stages.trials` in
a workspace: a copy of the repository with links to the data in DVC's cache. The worker runs trials
with Optuna's `study.optimize` until the budget of the study is used up. All workers of a study use
the same database, including workers on other machines. If a worker is killed (for example, because
memory runs out), it is started again and resumes its trial after the last complete epoch. When the
parent process ends, its workers also end.
"""

import os
import subprocess
import time

import psutil

from phototag.base.errors import InputError
from phototag.base.files import write_text
from phototag.experiments.workspaces import clean_workspaces, make_workspace
from phototag.search.storage import Plan


def run_workers(plan: Plan, jobs: int) -> None:
    """Run workers until the budget of the study is used up, and then remove their workspaces.

    Raises:
        InputError: A worker failed. The worker itself prints its error.
    """
    workers: dict[int, subprocess.Popen[bytes]] = {}
    with clean_workspaces(plan.root):
        for number in range(jobs):
            workers[number] = _start_worker(plan, number, jobs)
        while workers:
            time.sleep(0.2)
            for number, worker in list(workers.items()):
                code = worker.poll()
                if code is None:
                    continue
                del workers[number]
                if code < 0:  # the worker was killed by a signal
                    workers[number] = _start_worker(plan, number, jobs)
                elif code:
                    raise InputError(f"{plan.name}: a worker failed, see its error message above")


def _start_worker(plan: Plan, number: int, jobs: int) -> subprocess.Popen[bytes]:
    place = make_workspace(plan.root, number)
    path = place / ".dvc" / "tmp" / "plan.json"
    write_text(path, plan.model_copy(update={"worker": number}).model_dump_json())
    variables = {"DVC_ROOT": str(plan.root)}
    if jobs > 1:
        threads = max(1, (psutil.cpu_count(logical=False) or 1) // jobs)
        variables["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(threads))
    return subprocess.Popen(
        ["python", "-m", "stages.trials", str(path)],
        cwd=place,
        env=os.environ | variables,
        stdin=subprocess.PIPE,  # the pipe closes when this process ends; the worker then ends, too
        start_new_session=True,  # Ctrl-C does not reach workers; this process ends them
    )
