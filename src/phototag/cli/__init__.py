"""The command-line interface; `phototag --help` lists the commands.

Default paths are relative to the root folder of the project that contains the current folder.
Paths passed by the user are relative to the current folder.
"""

import sys
from importlib import metadata
from typing import Annotated

import typer

from phototag.base.files import exit_on_input_error
from phototag.cli import models, served, training
from phototag.cli.labels import label_app
from phototag.cli.monitoring import monitor_app

REMOVED = {
    "experiments": "python -m benchmarks.claims run",
    "results": "python -m benchmarks.claims results",
}

typer_app = typer.Typer(no_args_is_help=True, add_completion=False)
typer_app.command("import")(training.import_)
for command in (
    training.recipe,
    training.summary,
    training.curve,
    training.review,
    training.tune,
    training.sync,
    models.predict,
    served.ask,
    served.serve,
    models.demo,
    models.export,
    models.ui,
    models.history,
    models.card,
    models.promote,
    models.rollback,
):
    typer_app.command()(command)
typer_app.add_typer(label_app, name="label")
typer_app.add_typer(monitor_app, name="monitor")


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"phototag {metadata.version('phototag')}")
        raise typer.Exit


@typer_app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Train and use multi-label image classifiers."""


def app() -> None:
    """Run the requested command; print an `InputError` as one line instead of a traceback."""
    if sys.argv[1:2] and sys.argv[1] in REMOVED:
        sys.exit(f"error: phototag {sys.argv[1]} was removed: run `{REMOVED[sys.argv[1]]}`")
    with exit_on_input_error():
        typer_app()
