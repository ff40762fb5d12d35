"""Decode many photos in parallel and write them to one packed array."""

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from phototag.base.errors import InputError
from phototag.base.files import replace_file
from phototag.base.parallel import Backend, run_in_order
from phototag.decoding.photos import MAX_PIXELS, Photo, prepare_photo, read_shorter_side
from phototag.decoding.sources import read_file

CHUNK = 32  # photos per task; with this many, the cost of sending a task is negligible


def find_packed_side(
    source: Path,
    names: Sequence[str],
    size: int,
    invalid: Mapping[str, str],
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Return the side of the packed photos: `size`, or the largest shorter side if it is smaller.

    The headers of photos are read until a photo is large enough. If all are smaller, the network
    enlarges them from the packed side to `size`, so that the packed array stays small.

    Args:
        source: Folder or zip of the dataset.
        names: Paths of the photos in the source.
        size: Side of the photos that the network processes, in pixels.
        invalid: File -> reason, for the files that are rejected because of their names.
        max_pixels: Maximum number of pixels of a photo; larger photos are ignored.
    """
    largest = 0
    for name in names:
        if name not in invalid:
            with suppress(InputError):  # `prepare_photos` reports the file
                largest = max(largest, read_shorter_side(read_file(source, name), max_pixels))
        if largest >= size:
            return size
    return largest or size


def prepare_photos(
    source: Path,
    names: Sequence[str],
    size: int,
    invalid: Mapping[str, str] | None = None,
    min_side: int = 1,
    max_pixels: int = MAX_PIXELS,
    backend: Backend = "loky",
    n_jobs: int = -1,
    cached: Mapping[str, Photo] | None = None,
) -> Iterator[Photo]:
    """Decode photos in parallel and yield them in the order of `names`.

    Args:
        source: Folder or zip of the dataset.
        names: Paths of the photos in the source.
        size: Side of the decoded squares in pixels.
        invalid: File -> reason, for the files that are rejected because of their names.
        min_side: Minimum length of a photo's shorter side in pixels.
        max_pixels: Maximum number of pixels of a photo.
        backend: joblib backend; the machines of a cluster must find `source` under the same path.
        n_jobs: Number of workers; -1 starts one per core.
        cached: File -> photo, as returned by `load_decode_cache`. Files whose content has not
            changed are not decoded again.
    """
    invalid, cached = invalid or {}, cached or {}
    tasks = [
        (name, invalid.get(name, ""), cached[name].sha256 if name in cached else "")
        for name in names
    ]
    chunks = [tasks[start : start + CHUNK] for start in range(0, len(tasks), CHUNK)]
    work = partial(
        _prepare_chunk, source.absolute(), size=size, min_side=min_side, max_pixels=max_pixels
    )
    for chunk, photos in zip(chunks, run_in_order(work, chunks, backend, n_jobs), strict=True):
        for (name, *_), photo in zip(chunk, photos, strict=True):
            yield photo or cached[name]


def write_images(path: Path, photos: Iterable[Photo], size: int) -> list[Photo]:
    """Write photos to a packed .npy file, uint8 [num_images, size, size, 3].

    Rejected photos have no row. Photos are written one by one, so the array need not fit into RAM.

    Returns:
        All photos, including rejected photos, without their pixels.
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
        # NumPy pads the header, so the new header with the final number has the same length.
        file.seek(0)
        _write_header(file, num_images, size)
    return decided


def _prepare_chunk(
    source: Path, tasks: Sequence[tuple[str, str, str]], size: int, min_side: int, max_pixels: int
) -> list[Photo | None]:
    """Decode the files of a task; return None for each photo that the cache already contains."""
    photos: list[Photo | None] = []
    for name, invalid, cached_sha256 in tasks:
        reason, sha256 = invalid, ""
        try:
            data = read_file(source, name)
            sha256 = hashlib.sha256(data).hexdigest()
        except InputError as error:
            reason = invalid or str(error)
        if reason:
            photos.append(Photo("rejected", reason, sha256=sha256))
        elif sha256 == cached_sha256:
            photos.append(None)
        else:
            photos.append(prepare_photo(data, size, min_side, max_pixels))
    return photos


def _write_header(file: io.BufferedWriter, num_images: int, size: int) -> None:
    shape = (num_images, size, size, 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
