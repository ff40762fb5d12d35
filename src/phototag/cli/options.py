"""Options and checks shared by several commands."""

from pathlib import Path
from typing import Annotated

import typer

from phototag.base.errors import InputError
from phototag.base.files import project_root

MODEL, THRESHOLDS = Path("models/model.safetensors"), Path("reports/evaluate/thresholds.json")
Port = Annotated[int, typer.Option(help="Port of the server on 127.0.0.1.", min=1, max=65535)]
ModelFile = Annotated[
    Path | None,
    typer.Option("--model", help=f"Model file written by the train stage (default: {MODEL})."),
]
ThresholdsFile = Annotated[
    Path | None,
    typer.Option(
        "--thresholds", help=f"JSON file written by the evaluate stage (default: {THRESHOLDS})."
    ),
]


def model_files(model: Path | None, thresholds: Path | None) -> tuple[Path, Path]:
    """Return the paths of model and thresholds; replace None with the project's default path."""
    files = model or project_root() / MODEL, thresholds or project_root() / THRESHOLDS
    for file in files:
        if not file.is_file():
            raise InputError(
                f"{file} is missing: run `dvc repro`, or pass a model file with --model and its "
                "thresholds file with --thresholds"
            )
    return files


def refuse_existing(output: Path) -> None:
    """Raise an error if the output file exists, so that it is not overwritten."""
    if output.exists():
        raise InputError(f"{output} already exists: pass a new file name or remove it")
