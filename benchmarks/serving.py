"""Compare `phototag serve` with `mlflow models serve`, and with the same model in this process.

`python -m benchmarks.serving PHOTO_FOLDER [REQUESTS]` starts both servers with the champion of the
project. 1, 8 and 64 clients send requests with one photo each (default: 1 000 requests); they share
the CPU cores with the server. Both servers, and `phototag serve` with raw bytes instead of JSON,
are measured alternately. The overhead is the median latency at one client minus the median latency
of the same call in this process.
"""

import base64
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from subprocess import DEVNULL, Popen
from tempfile import TemporaryDirectory
from urllib.error import URLError
from urllib.request import urlopen

import mlflow
import numpy as np
import psutil

from phototag.apps.photo_files import find_photos
from phototag.serving.requests import tag_request
from phototag.serving.version import load_version
from phototag.tracking.store import connect

CLIENTS, TURNS = (1, 8, 64), 3
SERVERS = {
    "mlflow models serve": ["-m", "mlflow", "models", "serve", "--env-manager", "local", "-m"],
    "phototag serve": ["-c", "from phototag.cli import app; app()", "serve"],
}
PORTS = dict(zip(SERVERS, (5921, 5922), strict=True))
HEALTH = dict(zip(SERVERS, ("ping", "ready"), strict=True))


@dataclass
class Result:
    """Photos per second, latencies in ms, and CPU time of the server in ms per photo."""

    rate: float
    p50: float
    p99: float
    cpu: float


class Client(threading.local):
    """HTTP client with a separate connection for each thread."""

    def __init__(self, port: int, path: str, raw: bool) -> None:
        self.path, self.raw = path, raw
        self.connection = HTTPConnection(f"127.0.0.1:{port}", timeout=120)

    def __call__(self, photo: bytes) -> None:
        """Send one photo; exit with an error if the response contains no prediction."""
        if self.raw:
            body, kind = photo, "image/jpeg"
        else:
            row = [base64.b64encode(photo).decode()]
            table = {"columns": ["image"], "data": [row]}
            body, kind = json.dumps({"dataframe_split": table}).encode(), "application/json"
        self.connection.request("POST", self.path, body, {"Content-Type": kind})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200 or json.loads(text)["predictions"][0]["error"]:
            raise SystemExit(f"request failed: status {answer.status}, response {text[:300]!r}")


@contextmanager
def start(name: str, model: str) -> Iterator[psutil.Process]:
    """Run a server during the block, and yield its process."""
    command = [sys.executable, *SERVERS[name], model, "--port", str(PORTS[name])]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    server = Popen(command, stdout=DEVNULL, stderr=DEVNULL, env=environment)
    try:
        while True:
            try:
                urlopen(f"http://127.0.0.1:{PORTS[name]}/{HEALTH[name]}").close()
                break
            except URLError:
                if server.poll() is not None:
                    raise SystemExit(f"{name} ended with {server.returncode}") from None
                time.sleep(0.5)
        yield psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


def cpu_seconds(server: psutil.Process) -> float:
    """Return the CPU time of a process and its children."""
    times = [each.cpu_times() for each in (server, *server.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


def measure(
    tag: Callable[[bytes], object], photos: list[bytes], clients: int, server: psutil.Process
) -> Result:
    """Send all photos from several clients."""

    def wait(photo: bytes) -> float:
        asked = time.perf_counter()
        tag(photo)
        return 1000 * (time.perf_counter() - asked)

    start, cpu = time.perf_counter(), cpu_seconds(server)
    with ThreadPoolExecutor(clients) as pool:
        waits = list(pool.map(wait, photos))
    rate = len(photos) / (time.perf_counter() - start)
    p50, p99 = np.percentile(waits, (50, 99))
    return Result(rate, p50, p99, 1000 * (cpu_seconds(server) - cpu) / len(photos))


def main() -> None:
    """Measure all ways of calling the model alternately; print medians as a Markdown table."""
    folder, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    files = itertools.cycle(find_photos([folder], sys.stdin.buffer))
    photos = [Path(file).read_bytes() for file in itertools.islice(files, count)]
    with connect() as store, TemporaryDirectory() as copy, ExitStack() as stack:
        model = f"models:/{store.name}@champion"
        os.environ["MLFLOW_TRACKING_URI"] = store.uri
        artifacts = Path(mlflow.artifacts.download_artifacts(f"{model}/artifacts", dst_path=copy))
        names = ("model.safetensors", "thresholds.json", "recorded.onnx")
        tagger = load_version(*(artifacts / name for name in names))
        own = psutil.Process()
        started = {name: stack.enter_context(start(name, model)) for name in SERVERS}
        ways: dict[str, tuple[Callable[[bytes], object], psutil.Process]] = {
            "in this process": (lambda photo: tag_request(tagger, [photo]) and None, own)
        }
        for name, server in started.items():
            ways[f"{name}, JSON"] = Client(PORTS[name], "/invocations", raw=False), server
        ways["phototag serve, raw"] = Client(PORTS["phototag serve"], "/predict", raw=True), server
        found: dict[tuple[int, str], list[Result]] = {}
        for clients in CLIENTS:
            for tag, server in ways.values():
                measure(tag, photos[:100], clients, server)  # warm up
            for _, (name, (tag, server)) in itertools.product(range(TURNS), ways.items()):
                found.setdefault((clients, name), []).append(measure(tag, photos, clients, server))
        print("| Clients | Way | Photos/s | p50 | p99 | CPU of the server per photo |")
        print("|---|---|---|---|---|---|")
        for (clients, name), results in found.items():
            rate, p50, p99, cpu = np.median([list(vars(r).values()) for r in results], axis=0)
            print(
                f"| {clients} | {name} | {rate:.0f} | {p50:.1f} ms | {p99:.1f} ms | {cpu:.2f} ms |"
            )
        for name, server in started.items():
            size = sum(p.memory_info().rss for p in (server, *server.children(recursive=True)))
            print(f"{name}: {size / 2**20:.0f} MiB resident")


if __name__ == "__main__":
    main()
