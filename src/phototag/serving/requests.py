"""Requests: the photos in the cells of a request, and the predictions for them.

A cell has bytes, a base64 string (standard or URL-safe; padding is optional), a data URL, the file
URL of a file in the folder that the environment variable `PHOTOTAG_ROOT` names, or a list of these.
"""

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from phototag.base.errors import InputError
from phototag.serving.limits import (
    MAX_BYTES,
    MAX_PIXELS,
    MAX_REQUEST_BYTES,
    MAX_ROWS,
    TOO_LARGE,
)
from phototag.serving.tagger import Tagger, Tags, tag_photos

ROOT = "PHOTOTAG_ROOT"
# The message is the same for all files, so that it does not reveal which files exist.
NO_FILE = "there is no file of this name that this server may read"
FIELDS = ("labels", "scores", "error", "familiarity")  # attributes that are sent


def read_root() -> Path | None:
    """Return the value of the environment variable `PHOTOTAG_ROOT`, or None if it is not set.

    Raises:
        InputError: The value of `PHOTOTAG_ROOT` is not a folder.
    """
    value = os.environ.get(ROOT)
    if not value:
        return None
    if not Path(value).is_dir():
        raise InputError(
            f"{ROOT} is {value}, which is not a folder: set it to an existing folder or unset it"
        )
    return Path(value).resolve()


def read_cells(cells: Sequence[Any], root: Path | None = None) -> list[bytes | InputError]:
    """Return the contents of the photos in the cells, or an error for each unusable cell.

    A list counts as several cells, because MLflow passes `{"inputs": {"image": [...]}}` as one cell
    with a list.

    Raises:
        InputError: The photos exceed the limits of a request.
    """
    lists = [cell if isinstance(cell, list) else [cell] for cell in cells]
    values = [value for cell in lists for value in cell]
    if len(values) > MAX_ROWS:
        raise InputError(f"{len(values)} photos: send at most {MAX_ROWS} photos in one request")
    photos = []
    num_bytes = 0
    for value in values:
        photos.append(_read(value, root))
        num_bytes += len(photos[-1]) if isinstance(photos[-1], bytes) else 0
        if num_bytes > MAX_REQUEST_BYTES:
            limit = MAX_REQUEST_BYTES // 2**20
            raise InputError(
                f"photos of more than {limit} MiB in total: send fewer photos in one request"
            )
    return photos


def tag_request(tagger: Tagger, photos: Sequence[bytes | InputError]) -> list[Tags]:
    """Predict the labels of the photos of a request.

    Raises:
        InputError: None of the photos can be read.
    """
    tags = tag_photos(tagger, photos, MAX_PIXELS)
    if all(tag.error for tag in tags):
        errors = "; ".join(f"row {row}: {tag.error}" for row, tag in enumerate(tags[:5]))
        raise InputError(f"no row contains a photo that can be read ({errors})")
    return tags


def list_predictions(tags: Sequence[Tags]) -> list[dict[str, Any]]:
    """Return the predictions as they are sent: one dictionary with the keys `FIELDS` per photo."""
    return [{field: getattr(tag, field) for field in FIELDS} for tag in tags]


def _read(value: Any, root: Path | None) -> bytes | InputError:
    """Return the contents of the image file that a cell contains or names, or an error."""
    if isinstance(value, str) and value[:5].lower() == "file:":
        return _read_file(value[5:], root)
    if not isinstance(value, str | bytes):
        return InputError(f"a value of type {type(value).__name__} is neither base64 nor bytes")
    if len(value) > MAX_BYTES * 3 // 2:  # base64 has 4/3 of the size, plus any line breaks
        return InputError(TOO_LARGE)
    try:
        data = _decode(value) if isinstance(value, str) else value
    except ValueError as error:
        return InputError(f"the text is not base64: {error}")
    return data if len(data) <= MAX_BYTES else InputError(TOO_LARGE)


def _decode(text: str) -> bytes:
    """Decode a base64 string or a base64 data URL; raise a ValueError for any other text."""
    if text[:5].lower() == "data:":
        kind, _, text = text.partition(",")
        if not kind.lower().endswith(";base64"):
            raise ValueError("a data URL must have ;base64 before its comma")
    # White space, the URL-safe alphabet and missing padding are accepted.
    text = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _read_file(name: str, root: Path | None) -> bytes | InputError:
    """Return the contents of a file in `root`. For all other files, return the same error."""
    if root is None:
        return InputError(f"this server does not read files, because {ROOT} is not set")
    try:
        if name.startswith("//"):  # file://host/path
            name = "/" + name[2:].partition("/")[2]
        path = Path(os.path.normpath(root / unquote(name)))
        # Names are checked before disk access, so that response times reveal nothing about files.
        if path.is_relative_to(root):
            path = path.resolve()
            if path.is_relative_to(root) and path.is_file() and path.stat().st_size <= MAX_BYTES:
                return path.read_bytes()
    except Exception:  # for example, the name contains a NUL or is a circular link
        pass
    return InputError(NO_FILE)
