"""Many photos to one array, decoded in several processes."""

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from phototag.base.errors import InputError
from phototag.base.files import replace_file
from phototag.base.parallel import Backend, run_in_order
from phototag.decoding.photos import MAX_PIXELS, Photo, prepare_photo
from phototag.decoding.sources import read_file

CHUNK = 32  # photos a task: large enough to hide the cost of sending a task to a worker


def prepare_photos(
    source: Path,
    names: Sequence[str],
    size: int,
    refused: Mapping[str, str] | None = None,
    min_side: int = 1,
    max_pixels: int = MAX_PIXELS,
    backend: Backend = "loky",
    n_jobs: int = -1,
    known: Mapping[str, Photo] | None = None,
) -> Iterator[Photo]:
    """Prepare many photos in parallel and yield them in the order of `names`.

    Args:
        source: A folder or zip.
        names: Files in it.
        size: Of the squares, in pixels a side.
        refused: File -> reason, for files that are rejected whatever they hold.
        min_side: As for `prepare_photo`.
        max_pixels: As for `prepare_photo`.
        backend: Of `run_in_order`; a cluster must see `source` under the same path.
        n_jobs: As there.
        known: Of `memory.load_decode_cache`; a file of these bytes is not decoded again.
    """
    refused, known = refused or {}, known or {}
    tasks = [
        (name, refused.get(name, ""), known[name].sha256 if name in known else "") for name in names
    ]
    chunks = [tasks[start : start + CHUNK] for start in range(0, len(tasks), CHUNK)]
    work = partial(
        _prepare_chunk, source.absolute(), size=size, min_side=min_side, max_pixels=max_pixels
    )
    for chunk, photos in zip(chunks, run_in_order(work, chunks, backend, n_jobs), strict=True):
        for (name, *_), photo in zip(chunk, photos, strict=True):
            yield photo or known[name]


def write_images(path: Path, photos: Iterable[Photo], size: int) -> list[Photo]:
    """Stream photos into one packed .npy file, uint8 [num_images, size, size, 3].

    Rejected photos take no row. The array is never held in memory.

    Returns:
        Every photo, the rejected ones included, without its pixels.
    """
    decided = []
    num_images = 0
    with replace_file(path) as temporary, temporary.open("wb") as file:
        _write_header(file, num_images, size)
        for photo in photos:
            if photo.pixels is not None:
                file.write(photo.pixels.tobytes())
                num_images += 1
            decided.append(replace(photo, pixels=None))
        # NumPy pads the header so that the first dimension can grow in place.
        file.seek(0)
        _write_header(file, num_images, size)
    return decided


def _prepare_chunk(
    source: Path, tasks: Sequence[tuple[str, str, str]], size: int, min_side: int, max_pixels: int
) -> list[Photo | None]:
    return [_prepare_file(source, *task, size, min_side, max_pixels) for task in tasks]


def _prepare_file(
    source: Path,
    name: str,
    refusal: str,
    known: str,
    size: int,
    min_side: int,
    max_pixels: int,
) -> Photo | None:
    """Prepare a file; None where its SHA-256 is the known one."""
    try:
        data = read_file(source, name)
    except InputError as error:
        return Photo("rejected", refusal or str(error))
    if refusal:
        return Photo("rejected", refusal, sha256=hashlib.sha256(data).hexdigest())
    if known and hashlib.sha256(data).hexdigest() == known:
        return None
    return prepare_photo(data, size, PurePosixPath(name).suffix.lower(), min_side, max_pixels)


def _write_header(file: io.BufferedWriter, num_images: int, size: int) -> None:
    shape = (num_images, size, size, 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
