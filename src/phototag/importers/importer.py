"""Your own photos, brought into the layout that the pipeline reads.

The source is only read and nothing is ever overwritten: the result is a new zip or folder.
"""

import csv
import io
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.base.files import replace_file
from phototag.dataset.manifest import escape_name
from phototag.decoding.formats import PHOTO_EXTENSIONS, find_extension
from phototag.decoding.sources import read_file, read_path
from phototag.decoding.system_files import is_system_file
from phototag.importers.collection import Collection, Entry
from phototag.importers.recognition import Hints, read_collection


@dataclass(frozen=True)
class ImportSummary:
    """What an import brought.

    Attributes:
        destination: The new zip or folder.
        what: What the source was recognised as, and how many of each it holds.
        num_images: Photos in the destination.
        label_counts: Label -> photos that carry it.
        unknown_counts: Label -> photos of which it is not known; only labels with such photos.
        notes: What the user should know, a sentence each.
    """

    destination: Path
    what: str
    num_images: int
    label_counts: dict[str, int]
    unknown_counts: dict[str, int]
    notes: list[str]


class Writer(Protocol):
    """Writes one file of the result under its relative name."""

    def __call__(self, name: str, data: bytes) -> None:
        """Write the file."""


def import_photos(source: Path, destination: Path, hints: Hints | None = None) -> ImportSummary:
    """Bring photos and labels into `images/imN.EXT` and `annotations/CLASS.txt`.

    Beside them `unknown/CLASS.txt` has the photos of which a label is not known, where there are
    such, and `sources.csv` the way back from a new number to the user's own file.

    Args:
        source: What `read_collection` recognises.
        destination: A zip (by its suffix) or a folder, which must not exist.
        hints: What the user says of the source.

    Raises:
        InputError: The destination exists, or the source cannot be understood; the message names
            the file and line or key.
    """
    if destination.exists():
        raise InputError(f"{destination} exists: remove it, or choose another with --to")
    found = read_collection(source, hints or Hints())
    numbers = [
        row if entry.number is None else entry.number
        for row, entry in enumerate(found.entries, start=1)
    ]
    carried = _list_numbers(found, numbers, [entry.labels for entry in found.entries])
    unknown = _list_numbers(found, numbers, [entry.unknown for entry in found.entries])
    unknown = {label: some for label, some in unknown.items() if some}
    with _open_destination(destination) as write:
        files = []
        progress = tqdm(found.entries, "import", disable=None)
        for number, entry in zip(numbers, progress, strict=True):
            data = _read(entry, source)
            files.append(f"im{number}{_find_suffix(entry.name, data)}")
            write(f"images/{files[-1]}", data)
        for folder, labels in (("annotations", carried), ("unknown", unknown)):
            for label, some in labels.items():
                write(f"{folder}/{label}.txt", "".join(f"{number}\n" for number in some).encode())
        if any(entry.number is None for entry in found.entries):
            way_back = _list_sources(source, files, found.entries)
            write("sources.csv", way_back.encode("utf-8", "backslashreplace"))
    return ImportSummary(
        destination,
        escape_name(found.what),
        len(numbers),
        {label: len(some) for label, some in carried.items()},
        {label: len(some) for label, some in unknown.items()},
        [escape_name(note) for note in found.notes],
    )


def _list_numbers(
    found: Collection, numbers: Sequence[int], sets: Sequence[frozenset[str]]
) -> dict[str, list[int]]:
    """Return label -> numbers of the photos in whose set it is."""
    listed: dict[str, list[int]] = {label: [] for label in found.labels}
    for number, labels in zip(numbers, sets, strict=True):
        for label in labels:
            listed[label].append(number)
    return listed


def _list_sources(source: Path, files: Sequence[str], entries: Sequence[Entry]) -> str:
    """Write the way back: each photo's new name, its path from the source, its group, its id."""
    folder = source if source.is_dir() else source.parent
    has_ids = any(entry.id for entry in entries)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "source", "group", *(["id"] if has_ids else [])])
    for file, entry in zip(files, entries, strict=True):
        path = os.path.relpath(entry.path, folder)
        writer.writerow([file, path, entry.group, *([entry.id] if has_ids else [])])
    return text.getvalue()


@contextmanager
def _open_destination(destination: Path) -> Iterator[Writer]:
    """Yield a writer into a temporary zip or folder, which is renamed at the end."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    if destination.suffix.lower() == ".zip":
        with replace_file(destination) as temporary, zipfile.ZipFile(temporary, "x") as archive:
            # One date for all: the same photos make the same zip. JPEGs do not shrink further.
            yield lambda name, data: archive.writestr(zipfile.ZipInfo(name), data)
        return
    folder = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")

    def write(name: str, data: bytes) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    try:
        folder.mkdir()
        yield write
        folder.rename(destination)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read(entry: Entry, source: Path) -> bytes:
    try:
        return read_path(entry.path) if entry.root is None else read_file(entry.root, entry.name)
    except InputError as error:
        raise InputError(f"{entry.path}: {error}; mend it, or take it out of {source}") from None


def _find_suffix(name: str, data: bytes) -> str:
    """Return a photo's suffix; a missing or odd one (.jpg?size=2) follows from the content."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in PHOTO_EXTENSIONS:
        return suffix
    plain = re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) and not is_system_file(f"im1{suffix}")
    return find_extension(data) or (suffix if plain else ".bin")
