"""Options and checks that several commands share."""

import socket
from pathlib import Path
from typing import Annotated

import typer

from phototag.base.errors import InputError
from phototag.base.files import project_root

MODEL, THRESHOLDS = Path("models/model.safetensors"), Path("reports/evaluate/thresholds.json")
Port = Annotated[int, typer.Option(help="Port of the server on 127.0.0.1.", min=1, max=65535)]
ModelFile = Annotated[
    Path | None,
    typer.Option("--model", help=f"Weights written by the train stage (default: {MODEL})."),
]
ThresholdsFile = Annotated[
    Path | None,
    typer.Option(
        "--thresholds", help=f"Thresholds written by the evaluate stage (default: {THRESHOLDS})."
    ),
]


def project_file(path: str | Path) -> Path:
    """Return a file of the project, as a path relative to the current folder if it is below it."""
    file, here = project_root() / path, Path.cwd()
    return file.relative_to(here) if file.is_relative_to(here) else file


def model_files(model: Path | None, thresholds: Path | None) -> tuple[Path, Path]:
    """Return the given files, or the ones in the project for those that are None."""
    return model or project_file(MODEL), thresholds or project_file(THRESHOLDS)


def refuse_existing(output: Path) -> None:
    """Raise an error if the file exists, so that no output is overwritten."""
    if output.exists():
        raise InputError(f"{output} exists already: give a new file or remove it")


def check_port(port: int) -> None:
    """Refuse a port in use; the servers would retry for minutes or print no reason."""
    with socket.socket() as attempt:
        # The servers set this option too; it allows a port whose server has just ended.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"port {port} cannot be used ({error.strerror}): choose another one with --port"
            ) from None
