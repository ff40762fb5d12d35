"""Import of a Hugging Face ImageFolder, with metadata.csv or metadata.jsonl next to the photos.

See https://huggingface.co/docs/datasets/image_dataset.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

from pydantic import TypeAdapter, ValidationError

from phototag.base.errors import InputError
from phototag.base.params import describe_validation_error
from phototag.decoding.formats import PHOTO_EXTENSIONS
from phototag.decoding.sources import read_named_file
from phototag.importers.photo_files import PhotoList
from phototag.importers.source import Source, SourceDataset
from phototag.importers.tables import (
    FILE_COLUMNS,
    LABEL_COLUMNS,
    UNKNOWN,
    find_label_columns,
    read_table,
)
from phototag.verification.labels import normalize
from phototag.verification.listing import Listing, Row, decode_text, read_listing

METADATA = ("metadata.csv", "metadata.jsonl")
_LINE = TypeAdapter(dict[str, Any])


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
        path, separator = root / name, source.options.separator
        data = read_named_file(root, name)
        if path.suffix == ".csv":
            table = read_listing(data, str(path))
        else:
            table = _parse_json_lines(decode_text(data, str(path)), path, separator)
        kind = next(iter(find_label_columns(table, path)))
        skipped, labels = read_table(path, table, kind, source.options, listed)
        notes += [f"{name}: {note}" for note in skipped]
        one_hot += labels
    photos, repeated = listed.finish()
    notes += repeated
    found = {photo.name for photo in photos}
    photo_names = [name for name in names if Path(name).suffix.lower() in PHOTO_EXTENSIONS]
    if missing := [name for name in photo_names if name not in found]:
        notes.append(f"skipped photos not listed in metadata: {len(missing)}, such as {missing[0]}")
    description = (
        f"Hugging Face ImageFolder: {len(photos)} photos in {len(metadata)} metadata files"
    )
    return SourceDataset(description, photos, one_hot, notes)


def _find_metadata(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.rpartition("/")[2] in METADATA]


def _parse_json_lines(text: str, path: Path, separator: str | None) -> Listing:
    """Convert JSON Lines to a table; missing and null labels become unknown.

    Args:
        text: Content of the file, with one JSON object per line.
        path: Path of the file, shown in error messages.
        separator: Separator of the labels in a text; None if each text is one label.

    Raises:
        InputError: A line is not a JSON object, or a list contains an item that is not a label.
    """
    titles: dict[str, str] = {}
    rows = []
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        location = f"{path}:{line}"
        try:
            values = _LINE.validate_json(content)
        except ValidationError as error:
            raise InputError(f"{location}: {describe_validation_error(error)}") from None
        row = Row(line, {}, [])
        for key, value in values.items():
            title = normalize(key).strip()
            column = title.casefold()
            if isinstance(value, dict):  # objects such as bounding boxes are not labels
                continue
            cell = UNKNOWN if value is None else str(value)
            if column in LABEL_COLUMNS and cell != UNKNOWN:
                cell = _format_labels(value, separator, f"{location}: {key}")
            titles.setdefault(column, title)
            row.cells[column] = normalize(cell).strip()
        rows.append(row)
    for row in rows:
        for column in titles:
            row.cells.setdefault(column, "" if column in (*FILE_COLUMNS, "group") else UNKNOWN)
    return Listing(list(titles), list(titles.values()), rows, ",", 1)


def _format_labels(value: Any, separator: str | None, location: str) -> str:
    """Return a cell with a list of labels, or with a text that contains separators."""
    if isinstance(value, str) and (separator or value.startswith("[")):
        return value
    labels = value if isinstance(value, list) else [value]
    if not all(label is None or isinstance(label, str | int | float) for label in labels):
        raise InputError(f"{location} should be a list of labels, not {short_repr(value)}")
    return json.dumps([str(label) for label in labels], ensure_ascii=False)
