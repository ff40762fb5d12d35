"""Processes that start at once: what takes seconds to import was imported before they forked."""

import multiprocessing
import os
import runpy
import signal
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "phototag.training.loop",
        "phototag.tracking.runs",
        "mlflow.store.tracking.sqlalchemy_store",
        "torch._dynamo",  # by an optimizer's first step
    ]
)


def fork(work: Callable[..., Any], *arguments: Any) -> ForkServerProcess:
    """Start a process that calls a module's function."""
    process = CONTEXT.Process(target=work, args=arguments)
    process.start()
    return process


def fork_stage(name: str, folder: Path, variables: Mapping[str, str]) -> ForkServerProcess:
    """Start `python -m stages.NAME` in a folder, with other environment variables."""
    return fork(_run_stage, name, folder, variables)


def _run_stage(name: str, folder: Path, variables: Mapping[str, str]) -> None:
    # Where the tests run in the background, they ignore Ctrl-C, and their children would too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.chdir(folder)
    for variable in [v for v in os.environ if v.startswith(("DVC_", "MLFLOW_TRACKING_"))]:
        del os.environ[variable]
    os.environ.update(variables)
    runpy.run_module(f"stages.{name}", run_name="__main__")
