"""Store of features in `.phototag/features`, so that `embed` computes only those of new photos.

A photo is identified by a hash of its pixels, so photos can be added, removed and reordered. The
file KEY.features holds a record for each photo whose features were computed with a key (returned by
`features_key`). Records are appended after each batch, so a killed run can be resumed.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy
from tqdm import tqdm

from phototag.base.files import replace_file

CHUNK = 4096  # number of photos whose features are written at a time
DIGEST = "V32"  # a SHA-256 hash
Features = Mapping[bytes, np.ndarray]  # hash of a photo's pixels -> features, float32 [width]


class FeatureStore:
    """The open file with the features of one key.

    Attributes:
        file: File opened in the mode `ab+`.
    """

    def __init__(self, file: BinaryIO, width: int) -> None:
        self.file = file
        self.record = np.dtype([("photo", DIGEST), ("features", "<f4", (width,))])

    def load(self) -> Features:
        """Return all features, memory-mapped; remove an incomplete record at the end."""
        count = self.file.seek(0, os.SEEK_END) // self.record.itemsize
        self.file.truncate(count * self.record.itemsize)
        if not count:
            return {}
        records = np.memmap(self.file, self.record, mode="r", shape=(count,))
        photos = (photo.tobytes() for photo in records["photo"])
        return dict(zip(photos, np.asarray(records["features"]), strict=True))

    def append(self, photos: Sequence[bytes], features: np.ndarray) -> None:
        """Append the features of photos."""
        records = np.zeros(len(photos), self.record)
        records["photo"] = np.frombuffer(b"".join(photos), DIGEST)
        records["features"] = features
        self.file.write(records.tobytes())
        self.file.flush()


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
            chunk = photos[start : start + CHUNK]
            file.write(b"".join(features[photo].tobytes() for photo in chunk))
