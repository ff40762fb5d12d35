"""Log of served photos: files with one JSON object per photo, which are only appended to.

A file `predictions-YYYYMMDD-PID.jsonl` has the photos that one process served on one day (UTC). A
line has the keys `time`, `sha256` (hash of the photo file), `model` (name and version), `scores`,
`labels`, `familiarity` and `features` (base64 of little-endian float16; null if unknown). Each line
is written at once. A line that is cut off, because the process was killed, is ignored.
"""

import base64
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import rmtree
from threading import Lock

import numpy as np

from phototag.base.errors import InputError
from phototag.base.files import replace_file, report_failed_write
from phototag.serving.limits import EXAMPLE
from phototag.serving.tagger import Tags

FILE_NAME = re.compile(r"predictions-(\d{8})-\d+\.jsonl")
DAY = "%Y%m%d"
PHOTOS = "photos"  # subfolder with one folder of photo files per day
EXAMPLE_PHOTO = base64.b64decode(EXAMPLE)  # `phototag ask` sends it with each request
MODE = 0o640  # other users of the machine cannot read what was served


@dataclass(frozen=True)
class ServedPhoto:
    """A line of the log.

    Attributes:
        time: Time of the prediction, in UTC.
        sha256: SHA-256 of the photo file, hexadecimal.
        model: Name of the registered model.
        version: Number of the model version.
        scores: Probability of each label, 0..1.
        labels: Predicted labels.
        familiarity: Familiarity of the photo, 0..100, or None if it is not known.
        features: Features of the photo, float16 [width], or None if the version does not return
            them.
    """

    time: datetime
    sha256: str
    model: str
    version: str
    scores: dict[str, float]
    labels: list[str]
    familiarity: float | None
    features: np.ndarray | None


class PredictionLog:
    """Writer of the log of one process. Several threads may use it at the same time.

    Args:
        folder: Folder of the log files. It is created if it does not exist.
        days: Number of days after which files are removed; None to keep them.
        keeps_photos: Whether the photo files are stored too, in `photos/YYYYMMDD/SHA256`.

    Raises:
        InputError: The folder is not writable.
    """

    def __init__(self, folder: Path, days: int | None = None, keeps_photos: bool = False) -> None:
        self.folder, self.days, self.keeps_photos = folder, days, keeps_photos
        self.lock = Lock()
        self.day, self.file = "", -1
        self.is_cut = False  # whether the file ends with an incomplete line
        with report_failed_write(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._open(datetime.now(UTC))

    def write(
        self, model: str, version: str, photos: Sequence[bytes | InputError], tags: Sequence[Tags]
    ) -> None:
        """Append one line for each photo that could be read, except for the example.

        Raises:
            OSError: A line could not be written, for example because the disk is full.
        """
        for photo, found in zip(photos, tags, strict=True):
            if isinstance(photo, bytes) and not found.error and photo != EXAMPLE_PHOTO:
                self._write(model, version, photo, found)

    def _write(self, model: str, version: str, photo: bytes, tags: Tags) -> None:
        now = datetime.now(UTC)
        features = None
        if tags.features is not None:
            features = base64.b64encode(tags.features.astype("<f2").tobytes()).decode()
        entry = {
            "time": now.isoformat(timespec="milliseconds"),
            "sha256": tags.sha256,
            "model": {"name": model, "version": version},
            "scores": {label: round(score, 6) for label, score in tags.scores.items()},
            "labels": tags.labels,
            "familiarity": tags.familiarity,
            "features": features,
        }
        line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with self.lock:
            if now.strftime(DAY) != self.day:
                self._open(now)
            line = b"\n" * self.is_cut + line
            self.is_cut = True
            self.is_cut = os.write(self.file, line) < len(line)
        if self.is_cut:
            raise OSError(f"{self.folder}: a line of the log was cut off: free some disk space")
        if self.keeps_photos:
            path = self.folder / PHOTOS / now.strftime(DAY) / tags.sha256
            if not path.exists():
                with replace_file(path, clean=False) as temporary:
                    temporary.write_bytes(photo)

    def _open(self, now: datetime) -> None:
        """Open the file of a day, and remove the files that are too old."""
        self.remove_old(now)
        day = now.strftime(DAY)
        path = self.folder / f"predictions-{day}-{os.getpid()}.jsonl"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, MODE)
        if self.file >= 0:
            os.close(self.file)
        self.day, self.file = day, file
        # A process of the same number, such as that of a container, may have been killed.
        size = os.fstat(file).st_size
        self.is_cut = size > 0 and os.pread(file, 1, size - 1) != b"\n"

    def remove_old(self, now: datetime) -> None:
        """Remove files of days that are further back than `days`."""
        if self.days is None:
            return
        first = (now - timedelta(days=self.days)).strftime(DAY)
        for path in list_files(self.folder):
            if path.name.split("-")[1] < first:
                path.unlink(missing_ok=True)
        for folder in (self.folder / PHOTOS).glob("[0-9]" * 8):
            if folder.name < first:
                rmtree(folder, ignore_errors=True)


def list_files(folder: Path) -> list[Path]:
    """Return the log files in a folder, oldest day first."""
    return sorted(path for path in folder.glob("*.jsonl") if FILE_NAME.fullmatch(path.name))


def read_log(folder: Path) -> Iterator[ServedPhoto]:
    """Yield the served photos in the files of a folder, day by day. Lines cut off are skipped.

    Raises:
        InputError: The folder has no log files.
    """
    files = list_files(folder)
    if not files:
        raise InputError(
            f"{folder} has no files predictions-*.jsonl: pass the folder that `phototag serve "
            "--log-predictions` writes to"
        )
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n") and (photo := _parse(line)):
                    yield photo


def _parse(line: bytes) -> ServedPhoto | None:
    """Return the photo in a line, or None if the line was cut off."""
    try:
        entry = json.loads(line)
        features = entry["features"]
        if features is not None:
            features = np.frombuffer(base64.b64decode(features), "<f2")
        return ServedPhoto(
            datetime.fromisoformat(entry["time"]),
            entry["sha256"],
            entry["model"]["name"],
            entry["model"]["version"],
            entry["scores"],
            entry["labels"],
            entry["familiarity"],
            features,
        )
    except (ValueError, KeyError, TypeError):
        return None
