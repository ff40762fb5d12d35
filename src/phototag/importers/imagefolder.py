"""Import of a Hugging Face ImageFolder, with metadata.csv, .jsonl or .parquet next to photos.

See https://huggingface.co/docs/datasets/image_dataset.
"""

from collections.abc import Sequence

from phototag.decoding.sources import read_named_file
from phototag.importers.photo_files import PhotoList
from phototag.importers.source import Source, SourceDataset
from phototag.importers.table_files import parse_table
from phototag.importers.tables import find_label_columns, read_table

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def recognize(source: Source) -> bool:
    """Return whether a source is a folder that contains a metadata file."""
    return source.path.is_dir() and bool(_find_metadata(source.names or ()))


def read(source: Source) -> SourceDataset:
    """Read an ImageFolder, in which one or more folders contain a metadata file.

    Raises:
        InputError: Two metadata files list the same photo, or a row is invalid.
    """
    root, names = source.path, source.names or ()
    metadata = _find_metadata(names)
    listed = PhotoList(root)
    notes: list[str] = []
    one_hot: list[str] = []
    for name in metadata:
        path = root / name
        table = parse_table(read_named_file(root, name), path, source.options.separator)
        kind = next(iter(find_label_columns(table, path)))
        skipped, labels = read_table(path, table, kind, source.options, listed)
        notes += [f"{name}: {note}" for note in skipped]
        one_hot += labels
    photos, repeated = listed.finish()
    notes += repeated
    found = {photo.name for photo in photos}
    if missing := [name for name in source.split_names[0] if name not in found]:
        notes.append(f"skipped photos not listed in metadata: {len(missing)}, such as {missing[0]}")
    description = (
        f"Hugging Face ImageFolder: {len(photos)} photos in {len(metadata)} metadata files"
    )
    return SourceDataset(description, photos, one_hot, notes)


def _find_metadata(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.rpartition("/")[2] in METADATA]
