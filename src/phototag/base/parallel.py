"""Run many small tasks in parallel with joblib, on this machine or on a cluster."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any, Literal, TypeVar

from phototag.base.errors import InputError

Backend = Literal["sequential", "loky", "threading", "dask", "ray"]
Task = TypeVar("Task")
Result = TypeVar("Result")
SLAB = 256  # tasks sent to Ray at a time; if each decodes 32 photos, the results take 400 MB


def run_in_order(
    work: Callable[[Task], Result], tasks: Sequence[Task], backend: Backend, n_jobs: int = -1
) -> Iterator[Result]:
    """Run tasks in parallel and yield their results in the order of the tasks.

    Args:
        work: Module-level function, or a `functools.partial` of one, so that it can be pickled.
        tasks: Arguments of `work`, one per call. Each is sent to a worker, so keep them small.
        backend: joblib backend: sequential (this process), loky or threading (this machine), dask
            or ray (a cluster). Workers of a cluster must find the files that `work` reads under the
            same paths. The environment variable `DASK_SCHEDULER_ADDRESS` or `RAY_ADDRESS` gives the
            cluster's address; if it is not set, a cluster is started on this machine.
        n_jobs: Number of workers of loky or threading; -1 starts one per core.

    Raises:
        InputError: The backend's package is not installed, or the Dask scheduler does not answer.
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
        # Ray returns all results at once, so it gets few tasks at a time to limit the use of RAM.
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
        address = os.environ.get("DASK_SCHEDULER_ADDRESS", "localhost")
        raise InputError(
            f"no Dask scheduler answers at {address} ({error}): start one, or set "
            "DASK_SCHEDULER_ADDRESS to its address"
        ) from None


def _need(module: str, backend: str) -> None:
    if find_spec(module) is None:
        raise InputError(f"backend {backend} requires package {module}: run `make setup-{backend}`")
