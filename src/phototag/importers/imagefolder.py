"""Hugging Face's imagefolder: metadata.csv or metadata.jsonl beside the photos."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phototag.base.errors import InputError
from phototag.decoding.formats import PHOTO_EXTENSIONS
from phototag.importers.collection import (
    Collection,
    Entry,
    Place,
    collect,
    count,
    read_source_file,
    shorten_text,
)
from phototag.importers.tables import (
    FILES,
    UNKNOWN,
    Kind,
    choose_kind,
    read_table,
    recognize_table,
)
from phototag.verification.labels import normalize
from phototag.verification.listing import Listing, Row, decode_text, read_listing

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
ANY = "\x1f"  # between labels that came as a list: a character that no label may hold


def read_imagefolder(
    source: Path,
    metadata: Sequence[str],
    names: Sequence[str],
    kind: Kind | None,
    separator: str | None,
) -> Collection:
    """Read a folder (https://huggingface.co/docs/datasets/image_dataset), splits and all.

    Args:
        source: The folder.
        metadata: The metadata files in it, each beside the photos that it names.
        names: All files in it.
        kind: How the user says that the metadata are to be read; None as they show.
        separator: Between labels of a cell; None for what the cells show. Lists need none.

    Raises:
        InputError: Two files describe the same photos, one is of a kind that is not read, or a row
            is wrong.
    """
    entries: list[Entry] = []
    notes: list[str] = []
    offered: list[str] = []
    folders: dict[str, str] = {}
    for name in metadata:
        path, folder = source / name, name.rpartition("/")[0]
        mark = separator
        if name.endswith(".parquet"):
            raise InputError(f"{path}: this kind is not read; write it as metadata.csv or .jsonl")
        if (other := folders.setdefault(folder, name)) != name:
            raise InputError(
                f"{source / other} and {name} describe the same photos: give the one that counts "
                "as SOURCE"
            )
        data = read_source_file(source, name)
        if name.endswith(".csv"):
            listing = read_listing(data, str(path))
        else:
            mark = separator or ANY
            listing = read_json_lines(decode_text(data, str(path)), str(path), mark)
        chosen = choose_kind(recognize_table(listing, str(path)), kind, str(path))
        found, noted, columns = read_table(path, listing, chosen, path.parent, mark, source)
        entries += found
        notes += [f"{name}: {note}" if len(metadata) > 1 else note for note in noted]
        offered += columns
    listed = {entry.name for entry in entries}
    left = [n for n in names if Path(n).suffix.lower() in PHOTO_EXTENSIONS and n not in listed]
    if left:
        notes.append(f"{count(len(left), 'photo')} without metadata passed over, such as {left[0]}")
    what = f"imagefolder: {count(len(entries), 'photo')} in {count(len(metadata), 'metadata file')}"
    return collect(source, what, entries, notes, offered)


def read_json_lines(text: str, file: str, separator: str) -> Listing:
    """Read a JSON object a line as a table; what is null or missing there is not known.

    Args:
        text: What the file holds.
        file: Its name, for messages.
        separator: What joins the labels of a list into a cell.

    Raises:
        InputError: A line is none, or names no file; the message names it.
    """
    titles: dict[str, str] = {}
    rows = []
    for line, written in enumerate(text.split("\n"), start=1):
        if not written.strip():
            continue
        place = Place(file, line)
        try:
            values = json.loads(written)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place}: no JSON ({error}); one object a line") from None
        if not isinstance(values, dict):
            raise InputError(f"{place}: {shorten_text(written)} is no object; one a line")
        cells = {}
        for title, value in values.items():
            if isinstance(value, dict):  # boxes and the like: no label of the photo
                continue
            written_title = normalize(title).strip()
            column = written_title.casefold()
            titles.setdefault(column, written_title)
            if column in FILES and not isinstance(value, str):
                raise InputError(
                    f"{place}: {title} should be text, not {shorten_text(repr(value))}"
                )
            cells[column] = _write_cell(value, separator, f"{place}: {title}")
        rows.append(Row(line, cells, []))
    for row in rows:
        for column in titles:
            row.cells.setdefault(column, "" if column in (*FILES, "group") else UNKNOWN)
    return Listing(list(titles), list(titles.values()), rows, ",", 1)


def _write_cell(value: Any, separator: str, place: str) -> str:
    if isinstance(value, list):
        if not all(isinstance(one, str | int) for one in value):
            raise InputError(f"{place} should be a list of labels, not {shorten_text(repr(value))}")
        return separator.join(str(one) for one in value)
    return UNKNOWN if value is None else normalize(str(value)).strip()
