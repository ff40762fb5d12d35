"""How fast a served model answers, beside the same model called in this process.

`mlflow models serve -m models:/phototag@champion --env-manager local -p 5001` in one terminal, then
`python -m benchmarks.serving http://127.0.0.1:5001/invocations PHOTO_FOLDER` in another. Each of
1 000 requests carries one photo; 8 clients send them at once. In this process the registered model
is called with one photo at a time, likewise by 8 threads and by one.
"""

import base64
import itertools
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pandas as pd

from phototag.apps.predictions import find_photos
from phototag.tracking.store import connect

REQUESTS, CLIENTS, TURNS = 1000, 8, 3


class Client(threading.local):
    """A connection of each thread's own."""

    def __init__(self, address: str) -> None:
        from http.client import HTTPConnection
        from urllib.parse import urlsplit

        parts = urlsplit(address)
        self.path, self.connection = parts.path, HTTPConnection(parts.netloc, timeout=120)

    def __call__(self, image: str) -> None:
        """Send one photo, and end everything where the answer is no tagged photo."""
        body = json.dumps({"dataframe_split": {"columns": ["image"], "data": [[image]]}})
        self.connection.request("POST", self.path, body, {"Content-Type": "application/json"})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200 or json.loads(text)["predictions"][0]["error"]:
            raise SystemExit(f"failed: {answer.status} {text[:300]!r}")


def measure(tag: Callable[[str], None], images: list[str], clients: int) -> float:
    """Return photos a second."""
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(tag, images))
    return len(images) / (time.perf_counter() - start)


def main() -> None:
    """Take turns, and print the medians and the ratio."""
    address, folder = sys.argv[1:]
    files = itertools.cycle(find_photos([folder], []))
    encoded = {
        f: base64.b64encode(Path(f).read_bytes()).decode() for f in find_photos([folder], [])
    }
    images = [encoded[file] for file in itertools.islice(files, REQUESTS)]
    _ = connect().client  # from here on, MLflow knows the store
    model = mlflow.pyfunc.load_model("models:/phototag@champion")

    def call(image: str) -> None:
        model.predict(pd.DataFrame({"image": [image]}))

    client = Client(address)
    ways: dict[str, tuple[Callable[[str], None], int]] = {
        "served, 8 clients": (client, CLIENTS),
        "in process, 8 threads": (call, CLIENTS),
        "in process, 1 thread": (call, 1),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for tag, clients in ways.values():
        measure(tag, images[:50], clients)  # warm up
    for _ in range(TURNS):
        for name, (tag, clients) in ways.items():
            found[name].append(measure(tag, images, clients))
    served = statistics.median(found["served, 8 clients"])
    for name, rates in found.items():
        rate = statistics.median(rates)
        print(f"{name:<22} {rate:6.0f} photos/s   served is {served / rate:.2f} of it")


if __name__ == "__main__":
    main()
