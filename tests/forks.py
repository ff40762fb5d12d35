"""Processes forked from one that has already imported the slow libraries."""

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
        "phototag.training.linear_probe",
        "phototag.training.loop",
        "phototag.tracking.training",
        "phototag.experiments.dvc_tools",
        "phototag.apps.predictions",
        "timm",
        "mlflow.store.tracking.sqlalchemy_store",
        "torch._dynamo",  # imported by the first step of an optimizer
    ]
)


def fork(work: Callable[..., Any], *arguments: Any) -> ForkServerProcess:
    """Start a process that calls a function of a module."""
    process = CONTEXT.Process(target=work, args=arguments)
    process.start()
    return process


def fork_stage(name: str, folder: Path, variables: Mapping[str, str]) -> ForkServerProcess:
    """Start `python -m stages.NAME` in a folder with additional environment variables."""
    return fork(_run_stage, name, folder, variables)


def _run_stage(name: str, folder: Path, variables: Mapping[str, str]) -> None:
    # Tests that run in the background ignore Ctrl-C, and their child processes would as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.chdir(folder)
    for variable in [v for v in os.environ if v.startswith(("DVC_", "MLFLOW_TRACKING_"))]:
        del os.environ[variable]
    os.environ.update(variables)
    runpy.run_module(f"stages.{name}", run_name="__main__")


def run_forked(
    arguments: Sequence[str],
    encoding: str = "utf-8",
    folder: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> tuple[int, bytes, bytes]:
    """Run `phototag` and return its exit code, standard output and standard error.

    Args:
        arguments: Arguments of the command.
        encoding: Encoding of its streams.
        folder: Working directory (default: the current one).
        variables: Environment variables (default: the current ones).
    """
    with tempfile.TemporaryDirectory() as place:
        out, err = Path(place, "out"), Path(place, "err")
        given = folder or Path.cwd(), dict(variables or os.environ)
        process = fork(_run_command, arguments, *given, encoding, out, err)
        process.join()
        assert process.exitcode is not None
        return process.exitcode, out.read_bytes(), err.read_bytes()


def _run_command(
    arguments: Sequence[str],
    folder: Path,
    variables: Mapping[str, str],
    encoding: str,
    out: Path,
    err: Path,
) -> None:
    from phototag.cli import app

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    # Python opens the streams like this if PYTHONIOENCODING is set.
    sys.stdout = out.open("w", encoding=encoding)
    sys.stderr = err.open("w", encoding=encoding, errors="backslashreplace")
    # Child processes write to the same files.
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stderr.fileno(), 2)
    sys.argv = ["phototag", *arguments]
    app()
