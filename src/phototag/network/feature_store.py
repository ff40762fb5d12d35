"""Store of features in `.phototag/features`, so that `embed` computes only those of new photos.

A photo is identified by a hash of its pixels, so photos can be added, removed and reordered. The
store holds the features of the last run for each of the `RECENT` keys that were used last (a key is
returned by `features_key`). A run appends the features that it computes to the file KEY.part, from
which the next run resumes if this one is killed.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from tqdm import tqdm

from phototag.base.files import (
    content_key,
    read_json,
    remove_stale,
    replace_file,
    write_json,
)

RECENT = 4  # number of keys whose features are stored
CHUNK = 4096  # number of photos whose features are written at a time
DIGEST = 32  # bytes of a SHA-256 hash
Features = Mapping[bytes, np.ndarray]  # hash of a photo's pixels -> features, float32 [width]


class FeatureStore:
    """The stored features of one key.

    Attributes:
        part: File with the features that were computed since the last complete run. A record holds
            the hash of a photo and its features, so the file does not depend on the other photos.
    """

    def __init__(self, folder: Path, key: str, width: int) -> None:
        self.folder, self.width = folder, width
        self.index, self.part = folder / f"{key}.json", folder / f"{key}.part"
        self.record = np.dtype([("photo", f"V{DIGEST}"), ("features", "<f4", (width,))])

    def load(self) -> Features:
        """Return the features of the last complete run, memory-mapped; {} if there are none."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            index = read_json(self.index)
            array = np.load(self.folder / index["array"], mmap_mode="r")
            photos = [bytes.fromhex(photo) for photo in index["photos"]]
            # The time differs if a program has changed the linked file data/features.npy.
            is_unchanged = index["time"] == (self.folder / index["array"]).stat().st_mtime_ns
            if is_unchanged and array.shape == (len(photos), self.width):
                return dict(zip(photos, np.asarray(array), strict=True))
        return {}

    def load_part(self, file: BinaryIO) -> Features:
        """Return the features in the open file `part`; remove an incomplete record at its end."""
        count = file.seek(0, os.SEEK_END) // self.record.itemsize
        file.truncate(count * self.record.itemsize)
        if not count:
            return {}
        records = np.memmap(self.part, self.record, mode="r", shape=(count,))
        photos = (photo.tobytes() for photo in records["photo"])
        return dict(zip(photos, np.asarray(records["features"]), strict=True))

    def append(self, file: BinaryIO, photos: Sequence[bytes], features: np.ndarray) -> None:
        """Append the features of photos to the open file `part`."""
        records = np.zeros(len(photos), self.record)
        records["photo"] = np.frombuffer(b"".join(photos), f"V{DIGEST}")
        records["features"] = features
        file.write(records.tobytes())
        file.flush()

    def save(self, path: Path, photos: Sequence[bytes]) -> None:
        """Replace the stored features by those in the file `path`, which are those of `photos`.

        The store holds a hard link to the file, which takes no disk space, or a copy if the file
        system does not support hard links. Features of the keys that were not used recently are
        removed.
        """
        names = [photo.hex() for photo in photos]
        # The array's name is a hash of the photos, so an index cannot refer to another array.
        array = self.index.with_name(f"{self.index.stem}-{content_key(names, [])}.npy")
        with replace_file(array) as temporary:
            try:
                os.link(path, temporary)
            except OSError:
                shutil.copyfile(path, temporary)
        time = array.stat().st_mtime_ns
        write_json(self.index, {"array": array.name, "time": time, "photos": names})
        indices = sorted(self.folder.glob("*.json"), key=lambda index: index.stat().st_mtime_ns)
        for index in indices[:-RECENT]:
            index.unlink(missing_ok=True)
        recent = {index.stem for index in indices[-RECENT:]} - {self.index.stem}
        for other in self.folder.glob("*.npy"):
            if other != array and other.stem.partition("-")[0] not in recent:
                other.unlink(missing_ok=True)
        self.part.unlink(missing_ok=True)
        remove_stale(self.folder.glob("*.part"))


def hash_photos(images: np.ndarray) -> list[bytes]:
    """Return the SHA-256 hash of the pixels of each photo."""
    photos = tqdm(images, desc="hash", unit="image", disable=None)
    return [hashlib.sha256(photo.tobytes()).digest() for photo in photos]


def write_features(path: Path, photos: Sequence[bytes], width: int, features: Features) -> None:
    """Write the features of photos to an .npy file, float32 [num_photos, width]."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(photos), width)}
    with replace_file(path) as temporary, temporary.open("wb") as file:
        npy.write_array_header_1_0(file, header)
        for start in range(0, len(photos), CHUNK):
            file.write(
                b"".join(features[photo].tobytes() for photo in photos[start : start + CHUNK])
            )
