"""MLflow's web pages for the project's store."""

import os
import sys

from phototag.tracking.store import connect, training_view


def serve_ui(port: int) -> None:
    """Replace this process by an MLflow server on 127.0.0.1.

    If the store is a server already, only print the address of its page.

    Args:
        port: Port of the server.
    """
    with connect() as store:
        experiment = store.experiment_id
    if store.uri.startswith("http"):
        address = training_view(store.uri.rstrip("/"), experiment)
        print(f"MLflow runs on another server: open {address}")
        return
    address = training_view(f"http://127.0.0.1:{port}", experiment)
    print(f"Open {address}\nPress Ctrl-C to stop the server.", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
    options = ["--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    os.execv(sys.executable, [*command, *options])
