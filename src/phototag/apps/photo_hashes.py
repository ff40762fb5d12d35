"""Hashes of the contents of photos, cached by size and modification time."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.base.files import write_text
from phototag.base.parallel import run_in_order
from phototag.decoding.sources import read_path

MIN_AGE = 2  # seconds after a change of a file until its hash is cached


def hash_photo(photo: bytes | InputError) -> str | None:
    """Return the SHA-256 hash of the content of a file, or None if it could not be read."""
    return hashlib.sha256(photo).hexdigest() if isinstance(photo, bytes) else None


def locate(file: str) -> str:
    """Return an absolute path, so that different paths to a file are equal."""
    return os.path.normpath(Path.cwd() / file)


def hash_photos(names: Sequence[str], cache: Path) -> dict[str, str | None]:
    """Return path -> hash of the content of each photo; None if the file cannot be read.

    Only files whose size or modification time differs from that in the file `cache` are read.
    """
    cached: dict[str, list[Any]] = {}
    with suppress(OSError, TypeError, ValueError):
        cached = dict(json.loads(cache.read_bytes()))
    now = time.time()
    stamps: dict[str, list[int]] = {}
    hashes: dict[str, str | None] = dict.fromkeys(names)
    for name in names:
        with suppress(OSError):
            status = Path(name).stat()
            stamps[name] = [status.st_size, status.st_mtime_ns]
            *stamp, sha256 = cached.get(locate(name), [None])
            if stamp == stamps[name]:
                hashes[name] = sha256
    rest = [name for name in names if not hashes[name]]
    found = run_in_order(_hash_file, rest, "threading")
    bar = tqdm(found, "hash", len(rest), unit="photo", disable=None)
    hashes |= zip(rest, bar, strict=True)
    # A file that was changed just now could be changed again without another modification time.
    new = {
        locate(name): [*stamps[name], hashes[name]]
        for name in rest
        if hashes[name] and name in stamps and now - stamps[name][1] / 1e9 > MIN_AGE
    }
    if new:
        write_text(cache, json.dumps(cached | new))
    return hashes


def _hash_file(name: str) -> str | None:
    try:
        return hash_photo(read_path(Path(name)))
    except InputError:
        return None
