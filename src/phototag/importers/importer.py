"""Import of photos and labels: write them to a zip in the layout that the pipeline reads.

The source is not changed, and no file is overwritten.
"""

import hashlib
import os
import zipfile
from collections.abc import Collection, Sequence
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
    """Write the photos of a folder, zip, CSV or JSON file to a new zip; see `write_zip`.

    Raises:
        InputError: The destination exists, or the source is invalid. The message contains the file
            and the line or key.
    """
    if destination.exists():
        raise InputError(f"{destination} already exists: remove it, or pass another path with --to")
    dataset = read_source(source, options or ImportOptions())
    with replace_file(destination) as temporary:
        write_zip(temporary, source, dataset)
    return dataset


def write_zip(
    path: Path, source: Path, dataset: SourceDataset, known: Collection[str] = ()
) -> None:
    """Write photos to `images/imN.EXT`, labels to `annotations/CLASS.txt` and `sources.csv`.

    `unknown/CLASS.txt` lists the photos for which the label CLASS is unknown. `sources.csv` lists
    the path in the source, the group, the id and the SHA-256 of each photo. The files of photos
    whose SHA-256 is in `known` are not written.
    """
    photos = dataset.photos
    listed: dict[tuple[str, str], list[int]] = {
        ("annotations", label): [] for label in dataset.labels
    }
    files, digests = [], []
    with zipfile.ZipFile(path, "x") as archive:

        def write(name: str, data: bytes) -> None:
            # The default date of ZipInfo is constant, so the same photos result in the same zip.
            # The zip is not compressed, because JPEG files would hardly become smaller.
            archive.writestr(zipfile.ZipInfo(name), data)

        for row, photo in enumerate(tqdm(photos, "import", disable=None), start=1):
            data = _read_photo(photo, source)
            number = row if photo.number is None else photo.number
            files.append(f"im{number}{_find_suffix(photo.name, data)}")
            digests.append(hashlib.sha256(data).hexdigest())
            if digests[-1] not in known:
                write(f"images/{files[-1]}", data)
            for label in photo.labels:
                listed["annotations", label].append(number)
            for label in photo.unknown or ():
                listed.setdefault(("unknown", label), []).append(number)
        for (folder, label), lines in sorted(listed.items()):
            write(f"{folder}/{label}.txt", "".join(f"{line}\n" for line in lines).encode())
        write("sources.csv", _list_sources(source, files, photos, digests).encode())


def _list_sources(
    source: Path, files: Sequence[str], photos: Sequence[SourcePhoto], digests: Sequence[str]
) -> str:
    """Return a CSV with the new name, source path, group, optional id and hash of each photo."""
    in_zip = any(photo.root == source for photo in photos)
    folder = source if in_zip or source.is_dir() else source.parent
    columns = {
        "file": files,
        "source": [photo.origin or os.path.relpath(photo.path, folder) for photo in photos],
        "group": [photo.group for photo in photos],
        "id": [photo.id for photo in photos],
        "sha256": digests,
    }
    if not any(columns["id"]):
        del columns["id"]
    table = pd.DataFrame({column: map(escape_control, texts) for column, texts in columns.items()})
    return table.to_csv(index=False, lineterminator="\n")


def _read_photo(photo: SourcePhoto, source: Path) -> bytes:
    try:
        return read_path(photo.path) if photo.root is None else read_file(photo.root, photo.name)
    except InputError as error:
        raise InputError(f"{photo.path}: {error}; fix it or remove it from {source}") from None


def _find_suffix(name: str, data: bytes) -> str:
    """Return the suffix of a photo's name, or detect it from the content if the name has none."""
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if suffix in PHOTO_EXTENSIONS else EXTENSIONS.get(find_format(data), (".bin",))[0]
