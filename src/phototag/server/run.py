"""Start of the server: token, model, log and port."""

import os
import re
from pathlib import Path

import uvicorn

from phototag.base.errors import InputError
from phototag.base.processes import check_port
from phototag.server.app import Service, build_app
from phototag.server.champion import Champion
from phototag.server.log import PredictionLog
from phototag.serving.limits import TOKEN
from phototag.tracking.store import connect

URI = "MLFLOW_TRACKING_URI"
KEEP_ALIVE = 75  # seconds; proxies close idle connections earlier, so that no request is lost
GRACE = 30  # seconds for the requests that are being handled when the server is stopped
# By default, MLflow's client repeats a request for minutes if the MLflow server does not answer.
MLFLOW_OPTIONS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


def serve(
    address: str | None, host: str, port: int, token_file: Path | None, log: PredictionLog | None
) -> None:
    """Serve a model until SIGTERM or SIGINT; requests that are being handled are completed.

    Args:
        address: Address of the model (default: the champion of the project).
        host: Address to listen on.
        port: Port to listen on.
        token_file: File with the token (default: the environment variable `PHOTOTAG_TOKEN`).
        log: Log of the served photos.

    Raises:
        InputError: The token is invalid, the port is in use, or the model cannot be loaded.
    """
    token = read_token(token_file)
    check_port(port)
    os.environ |= {name: os.environ.get(name, value) for name, value in MLFLOW_OPTIONS.items()}
    uri = os.environ.get(URI, "")
    if not address or not uri:
        with connect() as store:  # this sets MLflow's addresses
            uri, address = store.uri, address or f"models:/{store.name}@champion"
    champion = Champion(address, uri)
    app = build_app(Service(champion, log, token))
    champion.watch()
    version = champion.version
    print(f"Serving version {version.number} of {version.name} on http://{host}:{port}", flush=True)
    uvicorn.run(
        app,
        host=host,
        port=port,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )


def read_token(file: Path | None) -> str:
    """Return the token in a file or in the environment variable; an empty string if there is none.

    Raises:
        InputError: The file cannot be read, or the token is not valid in a header.
    """
    source, token = TOKEN, os.environ.pop(TOKEN, "")
    if file:
        try:
            source, token = str(file), file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file} cannot be read ({error}): pass a text file") from None
    if not re.fullmatch("[!-~]+" if file else "[!-~]*", token):
        raise InputError(
            f"{source} is not a token: set it to one line of ASCII letters, digits or punctuation"
        )
    return token
