"""Command that uses a served model."""

import sys
from functools import partial
from typing import Annotated, Literal

import typer

from phototag.base.errors import InputError


def ask(
    url: Annotated[str, typer.Argument(help="URL of the server, such as http://127.0.0.1:5001.")],
    sources: Annotated[
        list[str],
        typer.Argument(help="Photos, folders of photos, or - to read paths from standard input."),
    ],
    format_: Annotated[
        Literal["table", "csv", "jsonl"], typer.Option("--format", "-f", help="Output format.")
    ] = "table",
    timeout: Annotated[
        float, typer.Option(help="Time limit of a request in seconds.", min=0.001)
    ] = 60,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for a server that is still starting.", min=0)
    ] = 0,
) -> None:
    """Ask a served model for the labels of photos.

    Sends the photos to a server that was started with `mlflow models serve`, and prints the same
    output as `phototag predict`. No model file is needed.
    """
    from phototag.apps.client import Client
    from phototag.apps.formats import print_rows
    from phototag.apps.photo_files import check_existence, find_photos

    report = partial(typer.echo, err=True)
    names = find_photos(sources, sys.stdin.buffer, report)
    client = Client(url, timeout, wait)
    # The format `table` contains the messages about photos that cannot be read.
    rows = client.predict(names) if format_ == "table" else client.predict(names, report)
    any_readable = print_rows(format_, names, client.labels, rows)
    check_existence(names)
    if not any_readable:
        raise InputError("none of these files could be read as a photo: pass image files")
