"""Cache of decoded photos, so that the next run does not decode unchanged files again.

The pixels depend on a file's bytes, the settings, the code of `phototag.decoding` and the installed
decoders. After labels are corrected or photos are added, only new and changed files are decoded.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import phototag.decoding
from phototag.base.files import content_key, read_json, replace_file, write_json
from phototag.dataset.manifest import DECIDED
from phototag.decoding.photos import Photo

INDEX = "photos.json"


def decoding_key(size: int, min_side: int, max_pixels: int) -> str:
    """Return a hash of the settings, code and decoder versions that determine decoded photos."""
    code = sorted(Path(phototag.decoding.__file__).parent.glob("*.py"))
    modules = [sys.modules.get(name) for name in ("PIL", "pillow_heif")]
    decoders = [getattr(module, "__version__", "") for module in modules]
    return content_key([size, min_side, max_pixels, *decoders], code)


def save_decode_cache(
    folder: Path, key: str, names: Sequence[str], photos: Sequence[Photo], images: Path
) -> None:
    """Replace the content of the cache with the photos of this run.

    `images` is the packed array of those `photos` that are not rejected, in the order of `names`.
    The cache holds a hard link to this array, which takes no disk space. If the file system does
    not support hard links, nothing is cached.
    """
    decided = [
        [name, *(getattr(photo, column) for column in DECIDED)]
        for name, photo in zip(names, photos, strict=True)
        if photo.decision != "rejected"
    ]
    # The array's name is a hash of the index, so an index cannot refer to an array of another run.
    array = folder / f"{content_key([key, decided], [])}.npy"
    try:
        with replace_file(array) as temporary:
            os.link(images, temporary)
    except OSError:
        return
    write_json(folder / INDEX, {"key": key, "array": array.name, "photos": decided})
    for other in folder.glob("*.npy"):
        if other != array:
            other.unlink(missing_ok=True)


def load_decode_cache(folder: Path, key: str) -> dict[str, Photo]:
    """Return file name -> cached photo, or {} if the cache has another key or is damaged.

    The pixels of the photos are memory-mapped.
    """
    try:
        index = read_json(folder / INDEX)
        array = np.load(folder / index["array"], mmap_mode="r")
    except (OSError, ValueError):
        return {}
    if index["key"] != key or len(array) != len(index["photos"]):
        return {}
    return {
        name: Photo(**dict(zip(DECIDED, decided, strict=True)), pixels=pixels)
        for (name, *decided), pixels in zip(index["photos"], array, strict=True)
    }
