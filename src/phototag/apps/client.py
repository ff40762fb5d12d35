"""Client of a served model (`mlflow models serve`): `phototag ask`."""

import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from tqdm import tqdm

from phototag.apps.formats import Row, show_name
from phototag.apps.photo_hashes import hash_photo
from phototag.base.errors import InputError
from phototag.decoding.sources import read_path
from phototag.serving.limits import EXAMPLE, MAX_BYTES, MAX_REQUEST_BYTES, MAX_ROWS, TOO_LARGE

# A request has a fraction of the permitted photos and bytes, so that a slow server can predict its
# labels within the time limit of MLflow's server (60 s).
ROWS = MAX_ROWS // 8
NUM_BYTES = MAX_REQUEST_BYTES // 4
PAUSE = 0.5  # seconds between attempts to reach a server
MAX_MESSAGE = 500  # characters of a message of the server
SERVE = "`mlflow models serve` (see docs/reference/served-api.md)"


class Client:
    """Connection to a server of a phototag model.

    Attributes:
        address: URL to which requests are sent.
        labels: Labels of the model.
    """

    def __init__(self, url: str, timeout: float, wait: float = 0) -> None:
        """Find out the labels of the served model.

        Args:
            url: URL of the server, with or without the path `/invocations`.
            timeout: Time limit of a request in seconds.
            wait: Time in seconds for which a server that is not running yet is waited for.

        Raises:
            InputError: The URL is invalid, or no phototag model answers in time.
        """
        self.address, self.timeout = _complete_url(url), timeout
        deadline = time.monotonic() + wait
        while True:
            try:
                (example,) = self._post([])
                break
            except ConnectionRefusedError:
                if time.monotonic() >= deadline:
                    raise InputError(
                        f"{self.address}: no server is running: start one with {SERVE}, or wait "
                        "for its start with --wait"
                    ) from None
                time.sleep(PAUSE)
        self.labels = list(example["scores"])

    def predict(
        self, names: Sequence[str], report: Callable[[str], object] = lambda _: None
    ) -> Iterator[Row]:
        """Send photos in several requests, and yield one row for each photo.

        Args:
            names: Paths of the photos.
            report: Function that prints a message about a photo that could not be read.

        Raises:
            InputError: The server does not answer, or it refuses a request.
        """
        batch: list[bytes | InputError] = []
        with tqdm(total=len(names), unit="photo", disable=None) as bar:
            for number, photo in enumerate(map(_read, names), start=1):
                batch.append(photo)
                num_bytes = sum(len(each) for each in batch if isinstance(each, bytes))
                if len(batch) < ROWS and num_bytes < NUM_BYTES and number < len(names):
                    continue
                done = number - len(batch)
                for name, row in zip(names[done:number], self._ask(batch), strict=True):
                    if row["error"]:
                        report(f"{show_name(name)}: {row['error']}")
                    bar.update()
                    yield row
                batch = []

    def _ask(self, batch: Sequence[bytes | InputError]) -> Iterator[Row]:
        try:
            answers = iter(self._post([photo for photo in batch if isinstance(photo, bytes)]))
        except ConnectionRefusedError:
            raise InputError(f"{self.address}: the server has stopped: start it again") from None
        for photo in batch:
            row: Row = {"labels": [], "scores": {}, "error": str(photo)}
            if isinstance(photo, bytes):
                row = next(answers)
            error = show_name(str(row["error"])) if row["error"] else None
            yield row | {"error": error, "sha256": hash_photo(photo), "model_key": None}

    def _post(self, photos: Sequence[bytes]) -> list[Row]:
        """Return the predictions for photos and, at the end, for a tiny example.

        The server refuses a request in which it can read no photo. It can read the example.
        """
        rows = [*([b64encode(photo).decode()] for photo in photos), [EXAMPLE]]
        body = json.dumps({"dataframe_split": {"columns": ["image"], "data": rows}}).encode()
        request = Request(self.address, body, {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=self.timeout) as response:
                text = response.read()
        except HTTPError as error:
            raise InputError(f"{self.address}: {_describe_status(error)}") from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, ConnectionRefusedError):
                raise reason from None
            if isinstance(reason, TimeoutError):
                raise InputError(
                    f"{self.address}: no answer in {self.timeout:g} seconds: pass a longer time "
                    "with --timeout"
                ) from None
            name = type(reason).__name__
            raise InputError(f"{self.address}: no answer ({str(reason) or name})") from None
        return self._check(text, len(rows))

    def _check(self, text: bytes, count: int) -> list[Row]:
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            rows = json.loads(text)["predictions"]
            found = [{key: row[key] for key in ("labels", "scores", "error")} for row in rows]
            readable = [row for row in found if not row["error"]]
            is_scored = all(row["scores"].keys() >= set(row["labels"]) for row in readable)
            if len(found) == count and is_scored and not found[-1]["error"]:
                return found
        raise InputError(
            f"{self.address}: this server does not serve a phototag model: start one with {SERVE}"
        )


def _complete_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        is_valid = is_valid and url.isascii() and url.isprintable() and " " not in url
    except ValueError:  # for example, the port is not a number
        is_valid = False
    if not is_valid:
        raise InputError(f"{show_name(url)} is not a URL: pass one such as http://127.0.0.1:5001")
    return url.rstrip("/").removesuffix("/invocations") + "/invocations"


def _describe_status(error: HTTPError) -> str:
    """Return a sentence about a response that is not successful."""
    if error.code in (404, 405):
        return f"status {error.code}: pass the URL of a server that was started with {SERVE}"
    reason: Any = ""
    with suppress(OSError, HTTPException, ValueError, KeyError, TypeError):
        reason = json.loads(error.read())["message"]
    text = " ".join(str(reason or error.reason or "no reason given").split())[:MAX_MESSAGE]
    return f"the server answers with status {error.code}: {text}"


def _read(name: str) -> bytes | InputError:
    try:
        photo = read_path(Path(name))
    except InputError as error:
        return error
    return photo if len(photo) <= MAX_BYTES else InputError(TOO_LARGE)
