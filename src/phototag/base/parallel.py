"""Many small tasks, spread over processes here or over a cluster by joblib."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any, Literal, TypeVar

from phototag.base.errors import InputError

Backend = Literal["sequential", "loky", "threading", "dask", "ray"]
Task = TypeVar("Task")
Result = TypeVar("Result")
SLAB = 256  # results that Ray's backend holds at once: 400 MB of 32 photos of 128 pixels each


def run_in_order(
    work: Callable[[Task], Result], tasks: Sequence[Task], backend: Backend, n_jobs: int = -1
) -> Iterator[Result]:
    """Do tasks in parallel, and yield their results in the order of the tasks, as they come.

    Args:
        work: A module's function, or a `partial` of one.
        tasks: Each is sent to a worker, so they should be small.
        backend: Of joblib: sequential in this process, loky or threading on this machine, dask or
            ray on a cluster, whose workers must see the files that `work` reads under the same
            paths. Dask's address is DASK_SCHEDULER_ADDRESS, Ray's RAY_ADDRESS; without one, they
            start on this machine.
        n_jobs: Workers of loky and threading; -1 for one a core.

    Raises:
        InputError: What the backend needs is not installed, or its cluster does not answer.
    """
    from joblib import Parallel, delayed, parallel_config

    with ExitStack() as stack:
        if backend == "dask":
            stack.enter_context(_join_dask())
        elif backend == "ray":
            _need("ray", "ray")
            from ray.util.joblib import register_ray

            register_ray()
        stack.enter_context(parallel_config(backend, n_jobs=n_jobs))
        # Ray's backend only returns whole lists: it gets the work in slabs that memory can hold.
        slab = SLAB if backend == "ray" else max(len(tasks), 1)
        parallel = Parallel(
            return_as="list" if backend == "ray" else "generator", pre_dispatch="4*n_jobs"
        )
        for start in range(0, len(tasks), slab):
            yield from parallel(delayed(work)(task) for task in tasks[start : start + slab])


def _join_dask() -> Any:
    _need("distributed", "dask")
    from distributed import Client

    try:
        return Client()
    except OSError as error:
        address = os.environ.get("DASK_SCHEDULER_ADDRESS", "here")
        raise InputError(
            f"no Dask scheduler answers at {address} ({error}): start it, or set "
            "DASK_SCHEDULER_ADDRESS to where it is"
        ) from None


def _need(module: str, backend: str) -> None:
    if find_spec(module) is None:
        raise InputError(f"backend {backend} needs {module}: run `make setup-{backend}`")
