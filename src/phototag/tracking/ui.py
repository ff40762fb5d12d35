"""MLflow's web interface for the project's store."""

import os
import sys

from phototag.base.processes import check_port
from phototag.tracking.store import VIEW, connect


def serve_ui(port: int) -> None:
    """Replace the current process with an MLflow server on 127.0.0.1.

    If the store is an MLflow server already, only print the address of the server's table of runs.

    Raises:
        InputError: The port is in use.
    """
    store = connect()
    is_server = store.uri.startswith("http")
    if not is_server:
        check_port(port)
    with store:
        experiment = store.experiment_id
    # Without these query parameters, MLflow opens its GenAI view, which has no table of runs.
    view = f"runs?workflowType=machine_learning&viewStateShareKey={VIEW}"
    page = f"/#/experiments/{experiment}/{view}"
    if is_server:
        print(f"The project uses an MLflow server: open {store.uri.rstrip('/')}{page}")
        return
    address = f"http://127.0.0.1:{port}{page}"
    print(f"The server takes some seconds to start. Then open {address}", flush=True)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
    if store.registry:
        command += ["--registry-store-uri", store.registry]
    options = ["--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    os.execv(sys.executable, [*command, *options])
