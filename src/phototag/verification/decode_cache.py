"""What an earlier run decoded: of the same bytes, settings and code the pixels are the same.

A corrected label, or a hundred photos more, then costs no more than reading the others' files.
"""

import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from phototag.base.files import content_key, read_json, replace_file, write_json
from phototag.dataset.manifest import DECIDED
from phototag.decoding.photos import Photo

NOTE = "photos.json"


def decoding_key(size: int, min_side: int, max_pixels: int) -> str:
    """Return the key of everything but a file's name and bytes that decides what becomes of it."""
    code = sorted(Path(__file__).parent.glob("*.py"))
    settings = [size, min_side, max_pixels, version("pillow"), _heif_version()]
    return content_key(settings, code)


def save_decode_cache(
    folder: Path, key: str, names: Sequence[str], photos: Sequence[Photo], images: Path
) -> None:
    """Keep what was decoded, in place of what was kept before.

    The array is linked, so that it takes no room; where that cannot be, nothing is kept.

    Args:
        folder: Where.
        key: Of `decoding_key`.
        names: Files, [num_files].
        photos: What was decided about each, [num_files].
        images: The array of those that were not rejected, in this order.
    """
    decided = [
        [name, *(getattr(photo, column) for column in DECIDED)]
        for name, photo in zip(names, photos, strict=True)
        if photo.decision != "rejected"
    ]
    # The array's name follows from what it holds: a note never goes with another array.
    array = folder / f"{content_key([key, decided], [])}.npy"
    try:
        with replace_file(array) as temporary:
            os.link(images, temporary)
    except OSError:
        return
    write_json(folder / NOTE, {"key": key, "array": array.name, "photos": decided})
    for other in folder.glob("*.npy"):
        if other != array:
            other.unlink(missing_ok=True)


def load_decode_cache(folder: Path, key: str) -> dict[str, Photo]:
    """Return what was kept under this key: file -> photo, whose pixels stay on disk until used."""
    try:
        note = read_json(folder / NOTE)
        array = np.load(folder / note["array"], mmap_mode="r")
    except (OSError, ValueError):
        return {}
    if note["key"] != key or len(array) != len(note["photos"]):
        return {}
    return {
        name: Photo(**dict(zip(DECIDED, decided, strict=True)), pixels=pixels)
        for (name, *decided), pixels in zip(note["photos"], array, strict=True)
    }


def _heif_version() -> str:
    try:
        return version("pillow-heif")
    except PackageNotFoundError:
        return ""
