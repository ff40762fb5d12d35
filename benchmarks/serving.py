"""Measure the latency of a model served by MLflow, and of the same model in this process.

Run `mlflow models serve -m models:/NAME@champion --env-manager local -p 5001` in one terminal,
and `python -m benchmarks.serving http://127.0.0.1:5001/invocations PHOTO_FOLDER` in another. 1, 8
and then 64 clients send 1 000 requests with one photo each; they share the CPU cores with the
server. In this process, 1 and then 8 threads call the model with one photo at a time. To compare
two models, serve the second one on another port and pass both addresses.
"""

import base64
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from phototag.apps.photo_files import find_photos
from phototag.tracking.store import connect

REQUESTS, CLIENTS, TURNS = 1000, (1, 8, 64), 3
RATE = "in process, 1 thread"  # denominator of the ratios


class Client(threading.local):
    """HTTP client with a separate connection for each thread."""

    def __init__(self, address: str) -> None:
        from http.client import HTTPConnection
        from urllib.parse import urlsplit

        parts = urlsplit(address)
        self.path, self.connection = parts.path, HTTPConnection(parts.netloc, timeout=120)

    def __call__(self, image: str) -> None:
        """Send one photo; exit with an error if the response contains no prediction."""
        body = json.dumps({"dataframe_split": {"columns": ["image"], "data": [[image]]}})
        self.connection.request("POST", self.path, body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200 or json.loads(text)["predictions"][0]["error"]:
            raise SystemExit(f"request failed: status {answer.status}, response {text[:300]!r}")


def measure(
    tag: Callable[[str], None], images: list[str], clients: int
) -> tuple[float, float, float]:
    """Return photos per second, and the median and 99th percentile of latency in ms."""

    def wait(image: str) -> float:
        asked = time.perf_counter()
        tag(image)
        return 1000 * (time.perf_counter() - asked)

    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        waits = list(pool.map(wait, images))
    rate = len(images) / (time.perf_counter() - start)
    return rate, float(np.percentile(waits, 50)), float(np.percentile(waits, 99))


def main() -> None:
    """Measure all ways of calling the model alternately; print medians and ratios."""
    *addresses, folder = sys.argv[1:]
    files = itertools.cycle(find_photos([folder], sys.stdin.buffer))
    encoded = {
        f: base64.b64encode(Path(f).read_bytes()).decode()
        for f in find_photos([folder], sys.stdin.buffer)
    }
    images = [encoded[file] for file in itertools.islice(files, REQUESTS)]
    store = connect()
    _ = store.client  # sets the tracking URI of MLflow
    model = mlflow.pyfunc.load_model(f"models:/{store.name}@champion")

    def call(image: str) -> None:
        model.predict(pd.DataFrame({"image": [image]}))

    ways: dict[str, tuple[Callable[[str], None], int]] = {RATE: (call, 1)}
    ways["in process, 8 threads"] = (call, 8)
    for address in addresses:
        client = Client(address)
        for clients in CLIENTS:
            ways[f"{address}, {clients} clients"] = (client, clients)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for tag, clients in ways.values():
        measure(tag, images[:100], clients)  # warm up
    for _ in range(TURNS):
        for name, (tag, clients) in ways.items():
            found[name].append(measure(tag, images, clients))
    medians = {name: np.median(turns, axis=0) for name, turns in found.items()}
    for name, (rate, middle, late) in medians.items():
        print(
            f"{name:<{max(map(len, ways))}}  {rate:6.0f} photos/s, "
            f"{rate / medians[RATE][0]:.2f} of one thread; "
            f"p50 {middle:6.1f} ms, p99 {late:6.1f} ms"
        )


if __name__ == "__main__":
    main()
