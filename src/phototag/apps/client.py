"""Client of a served model (`phototag serve`): `phototag ask`."""

import os
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import Any

import requests
from pydantic import BaseModel, ValidationError
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.util import Retry

from phototag.apps.formats import Row, show_name
from phototag.apps.photo_files import hash_photo
from phototag.base.errors import InputError
from phototag.decoding.sources import read_path
from phototag.serving.limits import (
    EXAMPLE,
    MAX_BYTES,
    MAX_MESSAGE,
    MAX_REQUEST_BYTES,
    MAX_ROWS,
    TOKEN,
    TOO_LARGE,
)

# A request has a fraction of the permitted photos and bytes, so that a slow server can predict its
# labels within the time limit of MLflow's server (60 s).
ROWS = MAX_ROWS // 8
NUM_BYTES = MAX_REQUEST_BYTES // 4
PAUSE = 0.5  # seconds between attempts to reach a server
SERVE = "`phototag serve` (see docs/reference/served-api.md)"


class Prediction(BaseModel):
    """The prediction for a photo in the response of a server."""

    labels: list[str]
    scores: dict[str, float]
    error: str | None
    familiarity: float | None = None  # versions without familiarity omit it


class Answer(BaseModel):
    """The response of a server."""

    predictions: list[Prediction]


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
        self.address = url.rstrip("/").removesuffix("/invocations") + "/invocations"
        self.timeout = timeout
        self.session = requests.Session()
        if token := os.environ.get(TOKEN):
            self.session.headers["Authorization"] = f"Bearer {token}"
        attempts = ceil(wait / PAUSE)
        retries = Retry(
            None, connect=attempts, read=0, other=0, backoff_factor=PAUSE, backoff_max=PAUSE
        )
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, HTTPAdapter(max_retries=retries))
        (example,) = self._post([])
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
        with tqdm(total=len(names), unit="photo", disable=None) as bar:
            for batch in _read_batches(names):
                photos = [photo for _, photo in batch if isinstance(photo, bytes)]
                answers = iter(self._post(photos))
                for name, photo in batch:
                    if isinstance(photo, bytes):
                        row = next(answers) | {"sha256": hash_photo(photo)}
                    else:
                        row = Prediction(labels=[], scores={}, error=str(photo)).model_dump()
                        row["sha256"] = None
                    if row["error"]:
                        row["error"] = show_name(row["error"])
                        report(f"{show_name(name)}: {row['error']}")
                    bar.update()
                    yield row | {"model_key": None}

    def _post(self, photos: Sequence[bytes]) -> list[Row]:
        """Return the predictions for photos and, at the end, for a tiny example.

        The server refuses a request in which it can read no photo. It can read the example.
        """
        rows = [*([b64encode(photo).decode()] for photo in photos), [EXAMPLE]]
        body: dict[str, Any] = {"dataframe_split": {"columns": ["image"], "data": rows}}
        try:
            response = self.session.post(self.address, json=body, timeout=self.timeout)
        except requests.Timeout:
            raise InputError(
                f"{self.address}: no answer in {self.timeout:g} seconds: pass a longer time with "
                "--timeout"
            ) from None
        except ValueError:  # raised by requests for an invalid URL
            raise InputError(
                f"{self.address} is not a URL: pass one such as http://127.0.0.1:5001"
            ) from None
        except requests.RequestException as error:
            reason = getattr(error.args[0], "reason", error)
            raise InputError(
                f"{self.address}: no server answers ({reason}): start one with {SERVE}, or wait "
                "for its start with --wait"
            ) from None
        if not response.ok:
            raise InputError(f"{self.address}: {_describe_status(response)}")
        with suppress(ValidationError):
            found = Answer.model_validate_json(response.content).predictions
            is_scored = all(set(row.labels) <= row.scores.keys() for row in found)
            if len(found) == len(rows) and found[-1].scores and is_scored:
                return [row.model_dump() for row in found]
        raise InputError(
            f"{self.address}: this server does not serve a phototag model: start one with {SERVE}"
        )


def _describe_status(response: requests.Response) -> str:
    """Return a sentence about a response that is not successful."""
    status = response.status_code
    if status in (404, 405):
        return f"status {status}: pass the URL of a server that was started with {SERVE}"
    reason = response.reason
    with suppress(ValueError, LookupError, TypeError):
        reason = response.json()["message"] or reason
    return f"the server answers with status {status}: {' '.join(str(reason).split())[:MAX_MESSAGE]}"


def _read_batches(names: Sequence[str]) -> Iterator[list[tuple[str, bytes | InputError]]]:
    """Yield the paths and contents of the photos of each request."""
    batch: list[tuple[str, bytes | InputError]] = []
    num_bytes = 0
    for name in names:
        photo = _read(name)
        batch.append((name, photo))
        num_bytes += len(photo) if isinstance(photo, bytes) else 0
        if len(batch) == ROWS or num_bytes >= NUM_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _read(name: str) -> bytes | InputError:
    try:
        photo = read_path(Path(name))
    except InputError as error:
        return error
    return photo if len(photo) <= MAX_BYTES else InputError(TOO_LARGE)
