"""Processes that start at once: what takes seconds to import was imported before they forked."""

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
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


def run_forked(arguments: Sequence[str], encoding: str) -> tuple[int, bytes, bytes]:
    """Run `phototag` here, its streams in an encoding; its exit code and what it wrote to them."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = fork(_run_command, arguments, Path.cwd(), encoding, out, err)
        process.join()
        assert process.exitcode is not None
        return process.exitcode, out.read_bytes(), err.read_bytes()


def _run_command(
    arguments: Sequence[str], folder: Path, encoding: str, out: Path, err: Path
) -> None:
    from phototag.cli import app

    os.chdir(folder)
    # As Python opens them where PYTHONIOENCODING names one.
    sys.stdout = out.open("w", encoding=encoding)
    sys.stderr = err.open("w", encoding=encoding, errors="backslashreplace")
    sys.argv = ["phototag", *arguments]
    app()
