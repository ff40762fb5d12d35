"""Commands that serve a model and use a served model."""

import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from phototag.base.errors import InputError

SERVER = ("fastapi", "mlflow", "prometheus_client", "python_multipart", "uvicorn")


def serve(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Registered model, such as models:/NAME@ALIAS (default: the project's champion).",
            envvar="PHOTOTAG_MODEL",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 5001,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the token that clients must send (default: the environment variable "
            "PHOTOTAG_TOKEN; without a token, everyone may send requests).",
            envvar="PHOTOTAG_TOKEN_FILE",
        ),
    ] = None,
    log_predictions: Annotated[
        Path | None,
        typer.Option(help="Folder for a log of the predictions, without pixels."),
    ] = None,
    log_photos: Annotated[
        bool, typer.Option("--log-photos", help="Store the photo files in this folder too.")
    ] = False,
    keep_days: Annotated[
        int | None,
        typer.Option(help="Days after which logged files are removed (default: never).", min=1),
    ] = None,
) -> None:
    """Serve the champion over HTTP.

    Clients send photos to /predict; the page /docs documents the API. If another version becomes
    the champion, the server loads it within seconds.
    """
    if missing := [name for name in SERVER if find_spec(name) is None]:
        raise InputError(f"the server needs {', '.join(missing)}: run `make setup-serve`")
    if not log_predictions and (log_photos or keep_days):
        option = "--log-photos" if log_photos else "--keep-days"
        raise InputError(f"{option} requires a folder: add --log-predictions FOLDER")
    from phototag.server.log import PredictionLog
    from phototag.server.run import serve

    log = PredictionLog(log_predictions, keep_days, log_photos) if log_predictions else None
    serve(model, host, port, token_file, log)


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

    Sends the photos to a server that was started with `phototag serve`, and prints the same output
    as `phototag predict`. No model file is needed.
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
