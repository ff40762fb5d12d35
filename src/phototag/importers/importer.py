"""Import of photos and labels: write them in the layout that the pipeline reads.

The result is a new zip or folder. The source is not changed, and no file is overwritten.
"""

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pandas as pd
from tqdm import tqdm

from phototag.base.errors import InputError, escape_control
from phototag.base.files import replace_file
from phototag.decoding.formats import EXTENSIONS, PHOTO_EXTENSIONS, find_format
from phototag.decoding.sources import read_file, read_path
from phototag.importers.formats import read_source
from phototag.importers.source import ImportOptions, SourceDataset, SourcePhoto


def import_photos(
    source: Path, destination: Path, options: ImportOptions | None = None
) -> SourceDataset:
    """Write the photos of a source to `images/imN.EXT`, the labels to `annotations/CLASS.txt`.

    `unknown/CLASS.txt` lists the photos for which the label CLASS is unknown. `sources.csv` maps
    the new file names to the paths in the source.

    Args:
        source: Path of a folder, zip, CSV or JSON file.
        destination: Path of the new zip (if the path ends with .zip) or folder (otherwise).
        options: Options of the import (default: detect format, folder and separator).

    Raises:
        InputError: The destination exists, or the source is invalid. The message contains the file
            and the line or key.
    """
    if destination.exists():
        raise InputError(f"{destination} already exists: remove it, or pass another path with --to")
    dataset = read_source(source, options or ImportOptions())
    photos = dataset.photos
    numbers = [
        row if photo.number is None else photo.number for row, photo in enumerate(photos, start=1)
    ]
    listed: dict[tuple[str, str], list[int]] = {
        ("annotations", label): [] for label in dataset.labels
    }
    with _open_destination(destination) as write:
        files = []
        for number, photo in zip(numbers, tqdm(photos, "import", disable=None), strict=True):
            data = _read_photo(photo, source)
            files.append(f"im{number}{_find_suffix(photo.name, data)}")
            write(f"images/{files[-1]}", data)
            for label in photo.labels:
                listed["annotations", label].append(number)
            for label in photo.unknown or ():
                listed.setdefault(("unknown", label), []).append(number)
        for (folder, label), lines in sorted(listed.items()):
            write(f"{folder}/{label}.txt", "".join(f"{line}\n" for line in lines).encode())
        if any(p.number is None or p.origin or p.group or p.id for p in photos):
            table = _list_sources(source, files, photos)
            write("sources.csv", table.encode())
    return dataset


def _list_sources(source: Path, files: Sequence[str], photos: Sequence[SourcePhoto]) -> str:
    """Return a CSV with the new name, source path, group and optional id of each photo."""
    folder = source if source.is_dir() else source.parent
    columns = {
        "file": files,
        "source": [photo.origin or os.path.relpath(photo.path, folder) for photo in photos],
        "group": [photo.group for photo in photos],
        "id": [photo.id for photo in photos],
    }
    if not any(columns["id"]):
        del columns["id"]
    table = pd.DataFrame({column: map(escape_control, texts) for column, texts in columns.items()})
    return table.to_csv(index=False, lineterminator="\n")


@contextmanager
def _open_destination(destination: Path) -> Iterator[Callable[[str, bytes], None]]:
    """Yield a function that adds a file to a temporary zip or folder; rename it at the end."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    if destination.suffix.lower() == ".zip":
        with replace_file(destination) as temporary, zipfile.ZipFile(temporary, "x") as archive:
            # The default date of ZipInfo is constant, so the same photos result in the same zip.
            # The zip is not compressed, because JPEG files would hardly become smaller.
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


def _read_photo(photo: SourcePhoto, source: Path) -> bytes:
    try:
        return read_path(photo.path) if photo.root is None else read_file(photo.root, photo.name)
    except InputError as error:
        raise InputError(f"{photo.path}: {error}; fix it or remove it from {source}") from None


def _find_suffix(name: str, data: bytes) -> str:
    """Return the suffix of a photo's name, or detect it from the content if the name has none."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if suffix in PHOTO_EXTENSIONS else EXTENSIONS.get(find_format(data), (".bin",))[0]
