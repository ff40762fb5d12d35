"""Load test of a server: good clients at a steady rate, and hostile clients.

`python -m benchmarks.serving_load PHOTO_FOLDER MINUTES [HOSTILE] [URL]` starts `phototag serve`
with the champion of the project, or uses the server at URL, whose process id follows the URL:
`http://127.0.0.1:5001 PID`. It measures the capacity with 8 clients and 500 photos, and then
sends photos at 80 % of this rate for some minutes, while hostile clients (default: 64) send bodies
that are large, slow, damaged or interrupted. It prints the memory of the server, the responses to
the hostile clients, and the number of good requests that failed.
"""

import base64
import io
import itertools
import json
import os
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
from PIL import Image

from benchmarks.serving import PORTS, start
from phototag.apps.photo_files import find_photos
from phototag.tracking.store import connect

SHARE, PATIENCE = 0.8, 120  # share of the capacity; seconds until a response is given up
JSON, RAW, FORM = "application/json", "image/png", "multipart/form-data; boundary=x"


def make_bodies(photo: bytes) -> dict[str, tuple[str, bytes]]:
    """Return content types and bodies of hostile requests."""
    file = io.BytesIO()
    Image.new("P", (4999, 4999)).save(file, "PNG", transparency=b"\0" * 256)
    bomb, junk = file.getvalue(), os.urandom(30 * 2**20)
    part = b'--x\r\nContent-Disposition: form-data; name="p"; filename="a"\r\n\r\n%s\r\n'
    text = base64.b64encode(junk).decode()
    return {
        "photo of 25 million pixels": (RAW, bomb),
        "30 MiB of noise": (RAW, junk),
        "form of 60 MiB of noise": (FORM, part % junk * 2 + b"--x--\r\n"),
        "JSON of 80 MiB of noise": (JSON, json.dumps({"inputs": [text, text]}).encode()),
        "JSON of 256 large photos": (
            JSON,
            json.dumps({"inputs": [base64.b64encode(bomb).decode()] * 256}).encode(),
        ),
        "photo with 20 MiB behind it": (RAW, photo + bytes(20 * 2**20)),
        "deeply nested JSON": (JSON, b"[" * 2**20),
        "half of a photo": (RAW, photo[: len(photo) // 2]),
        "200 MiB": (RAW, b""),
    }


class Test:
    """Load test of one server."""

    def __init__(self, address: str, path: str, server: psutil.Process) -> None:
        self.address, self.path, self.server = urlsplit(address).netloc, path, server
        self.answers: Counter[str] = Counter()
        self.waits: list[float] = []
        self.lost = 0
        self.stopped = threading.Event()

    def post(self, kind: str, body: bytes, timeout: float = PATIENCE) -> int:
        """Send a request on a new connection, and return the status of its response."""
        connection = HTTPConnection(self.address, timeout=timeout)
        try:
            connection.request("POST", self.path, body, {"Content-Type": kind})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def send_photo(self, photo: bytes, kind: str = "image/jpeg") -> None:
        """Send a good photo, and count it as lost if it gets no prediction."""
        if self.path == "/invocations":
            kind, photo = JSON, json.dumps({"inputs": [base64.b64encode(photo).decode()]}).encode()
        asked = time.perf_counter()
        try:
            status = self.post(kind, photo)
        except (OSError, HTTPException):
            status = 0
        self.lost += status != 200
        self.waits.append(1000 * (time.perf_counter() - asked))

    def attack(self, number: int, bodies: dict[str, tuple[str, bytes]]) -> None:
        """Send hostile requests until the test ends."""
        for name, (kind, body) in itertools.islice(itertools.cycle(bodies.items()), number, None):
            if self.stopped.is_set():
                return
            try:
                if name == "200 MiB":
                    status = str(self._send_part(kind, 200 * 2**20, b"x" * 2**20, 1))
                elif number % 8 == 0:  # a slow client, which closes the connection in the end
                    status = str(self._send_part(kind, len(body), body[:1000], 20))
                else:
                    status = str(self.post(kind, body))
            except (OSError, HTTPException) as error:
                status = type(error).__name__
            self.answers[f"{name}: {status}"] += 1

    def _send_part(self, kind: str, length: int, part: bytes, seconds: float) -> int:
        connection = HTTPConnection(self.address, timeout=seconds)
        with suppress(TimeoutError):
            connection.putrequest("POST", self.path)
            connection.putheader("Content-Type", kind)
            connection.putheader("Content-Length", str(length))
            connection.endheaders()
            connection.send(part)
            return connection.getresponse().status
        connection.close()
        return 0

    def resident(self) -> float:
        """Return the resident memory of the server and its children in MiB."""
        processes = [self.server, *self.server.children(recursive=True)]
        return float(sum(process.memory_info().rss for process in processes)) / 2**20

    def run(self, photos: list[bytes], minutes: float, hostile: int) -> None:
        """Run the test and print its results."""
        bodies = make_bodies(photos[0])
        cycle = itertools.cycle(photos)
        with ThreadPoolExecutor(8) as clients:
            started = time.perf_counter()
            list(clients.map(self.send_photo, photos))
            rate = len(photos) / (time.perf_counter() - started)
        before = self.resident()
        print(f"capacity {rate:.0f} photos/s; {before:.0f} MiB resident", flush=True)
        self.waits.clear()
        attackers = [
            threading.Thread(target=self.attack, args=(number, bodies), daemon=True)
            for number in range(hostile)
        ]
        for attacker in attackers:
            attacker.start()
        sizes: list[float] = []
        begin = time.perf_counter()
        with ThreadPoolExecutor(64) as clients:
            for number, photo in enumerate(cycle):
                due = begin + number / (SHARE * rate)
                time.sleep(max(0, due - time.perf_counter()))
                if time.perf_counter() - begin > 60 * minutes:
                    break
                clients.submit(self.send_photo, photo)
                if (time.perf_counter() - begin) // 1 >= len(sizes):
                    sizes.append(self.resident())
                    if len(sizes) % 30 == 0:
                        print(f"{len(sizes)} s: {sizes[-1]:.0f} MiB", flush=True)
            self.stopped.set()
        end = time.perf_counter() + PATIENCE
        for attacker in attackers:
            attacker.join(max(0, end - time.perf_counter()))
        time.sleep(10)
        p50, p99 = np.percentile(self.waits, (50, 99))
        print(f"good requests: {len(self.waits)}, lost: {self.lost}")
        print(f"latency: p50 {p50:.0f} ms, p99 {p99:.0f} ms")
        print(f"resident: at most {max(sizes):.0f} MiB, {self.resident():.0f} MiB at the end")
        for answer, times in sorted(self.answers.items()):
            print(f"  {answer} ({times})")


def main() -> None:
    """Start the server if no address is passed, and run the test."""
    folder, minutes, hostile, *server = [*sys.argv[1:], "64"][:3] + sys.argv[4:]
    photos = [Path(file).read_bytes() for file in find_photos([folder], sys.stdin.buffer)[:500]]
    with ExitStack() as stack:
        if server:
            process = psutil.Process(int(server[1]))
            address, path = server[0], "/invocations"
        else:
            store = stack.enter_context(connect())
            os.environ["MLFLOW_TRACKING_URI"] = store.uri
            process = stack.enter_context(start("phototag serve", f"models:/{store.name}@champion"))
            address, path = f"http://127.0.0.1:{PORTS['phototag serve']}", "/predict"
        Test(address, path, process).run(photos, float(minutes), int(hostile))


if __name__ == "__main__":
    main()
