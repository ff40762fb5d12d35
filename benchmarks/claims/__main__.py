"""Command line interface: run `python -m benchmarks.claims --help`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.claims.campaign import run_claims, update_results
from benchmarks.claims.claims import describe_claims, read_experiments
from phototag.base.errors import InputError
from phototag.base.files import project_root

typer_app = typer.Typer(no_args_is_help=True, add_completion=False)


@typer_app.callback()
def main() -> None:
    """Test the report's claims with DVC experiments."""


@typer_app.command("list")
def list_() -> None:
    """List the claims and their variants."""
    typer.echo(describe_claims(read_experiments()))


@typer_app.command()
def run(
    claims: Annotated[list[str], typer.Argument(help="Names of claims in experiments.yaml.")],
    photos: Annotated[
        Path | None, typer.Option(help="Zip or folder of photos (default: data.raw).")
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="Variant to run; can be repeated (default: all).")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Seed to run; can be repeated (default: 0, 1, 2).")
    ] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Skip runs that already have a row in runs.csv.")
    ] = False,
) -> None:
    """Run the experiments of claims with DVC, and update docs/research/results.md.

    Existing experiments are not run again, unless the photos, labels or corrections have changed.
    """
    seeds = seed or [0, 1, 2]
    run_claims(project_root(), claims, photos, variant or [], seeds, missing, typer.echo)


@typer_app.command()
def results() -> None:
    """Collect the results of finished experiments, and update docs/research/results.md."""
    update_results(project_root())


if __name__ == "__main__":
    try:
        typer_app(prog_name="python -m benchmarks.claims")
    except InputError as error:
        sys.exit(f"error: {error}")
