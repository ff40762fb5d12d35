"""Options and checks that several commands share."""

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


def model_files(model: Path | None, thresholds: Path | None) -> tuple[Path, Path]:
    """Return the given files, or the ones in the project for those that are None."""
    return model or project_root() / MODEL, thresholds or project_root() / THRESHOLDS


def refuse_existing(output: Path) -> None:
    """Raise an error if the file exists, so that no output is overwritten."""
    if output.exists():
        raise InputError(f"{output} exists already: give a new file or remove it")
