"""MLflow's own pages on the project's store."""

import os
import sys

from phototag.tracking.store import connect, training_view


def serve_ui(port: int) -> None:
    """Become MLflow's server, on 127.0.0.1; where the store is a server already, name its page.

    Args:
        port: Of the server.
    """
    with connect() as store:
        experiment = store.experiment_id
    if store.uri.startswith("http"):
        print(f"MLflow runs elsewhere: {training_view(store.uri.rstrip('/'), experiment)}")
        return
    address = training_view(f"http://127.0.0.1:{port}", experiment)
    print(f"Open {address}\nCtrl-C stops the server.", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
    os.execv(
        sys.executable, [*command, "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    )
