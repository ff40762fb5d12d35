"""Import of tables with one photo per row: a CSV of labels, or a one-hot CSV."""

import re
from collections import Counter
from contextlib import suppress
from reprlib import repr as short_repr
from typing import Any, Literal

import yaml

from phototag.base.errors import InputError
from phototag.importers.photo_files import find_photos, list_names
from phototag.importers.source import Source, SourceDataset, SourcePhoto
from phototag.importers.table_files import LABEL_COLUMNS, UNKNOWN, is_file_column
from phototag.verification.labels import check_label
from phototag.verification.listing import Listing

TableKind = Literal["list", "one-hot"]
ID_COLUMNS = ("id", "image_id", "imageid")  # contain the file names if no other column does
YES, NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}
# A question mark, and words that pandas reads as a missing value.
UNKNOWN_WORDS = {UNKNOWN, "nan", "NaN", "None", "null", "NULL", "NA", "N/A", "n/a", "#N/A", "<NA>"}
SPLIT_COLUMNS = ("split", "subset", "fold", "kfold", "valid", "val", "validation", "test",
                 "is_train", "is_valid", "is_val", "is_test")  # fmt: skip
INDEX_COLUMNS = ("", "unnamed: 0", "index")
SEPARATORS = ",;|\n"
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # reads all scalars as text
# [a], {'a'} and ('a',); text in double quotes may contain brackets.
_LIST = re.compile(r"""(?:set)?(?:[\[{]|\((?=['")]))((?>"(?:[^"\\]|\\.)*"|[^][{}])*)[])}]""")
# Six words without a separator, or several words with a full stop.
_CAPTION = re.compile(r"(?<![^\s,;|])([^\s,;|]+ ){5}[^\s,;|]|^\S+ .*[.!?]['\"]?\]?$")
# Paths on another machine, such as C:\a.jpg, https://x/a.jpg and ~/a.jpg.
_FOREIGN = re.compile(r"[a-z][a-z0-9]*:|[/\\~]", re.IGNORECASE)
_DOUBT = re.compile(r"\w *([#+&\u3001\uff0c\uff1b]) *\w|\s")


def recognize(source: Source, kind: TableKind) -> bool:
    """Return whether a source is a table of the given kind; raise an error if it has no labels."""
    is_list = source.is_table() and not source.is_metadata()
    return is_list and kind in _find_label_columns(source)


def read(source: Source, kind: TableKind | None = None) -> SourceDataset:
    """Read the photos and labels of a table.

    In a column of labels, an empty cell means that the photo has no label; `?` means that all other
    labels are unknown. In a one-hot table, an empty cell or `?` means that the label is unknown.
    Missing values, such as `nan`, are read as `?`. If `kind` is omitted, a column of labels is read
    if there is one.

    Raises:
        InputError: A row is invalid. The message contains its line number.
    """
    path, table, options = source.path, source.table, source.options
    file_column = _find_file_column(source)
    kinds = _find_label_columns(source).items()
    kind, columns = next((name, columns) for name, columns in kinds if kind in (None, name))
    one_hot: dict[str, str] = {}
    separator = options.separator or ";"
    if kind == "one-hot":
        header = f"{path}:{table.header_line}"
        one_hot = {column: check_label(table.columns[column], header) for column in columns}
    elif options.separator is None:
        separator = _find_separator(source, columns[0])
    id_column = next((column for column in ID_COLUMNS if column in table.columns), "id")
    photos, names = [], []
    values = Counter[str]()
    for row in table.rows:
        location = f"{path}:{row.line}"
        cells = row.cells
        if row.extra or any(column not in cells for column in (file_column, *columns)):
            raise InputError(
                f"{location}: the row has {len(cells) + len(row.extra)} cells, but the header has "
                f"{len(table.columns)}: separate cells with {table.separator!r}, and write all "
                f"labels of a photo in one cell, separated by {separator!r}"
            )
        file = cells[file_column]
        is_foreign = options.images or _FOREIGN.match(file)
        names.append([file, *list_names(file)] if is_foreign else [file])
        unknown: frozenset[str] | None
        if one_hot:
            values.update(cells[column] for column in one_hot)
            labels, unknown = _read_one_hot(cells, one_hot, location)
        else:
            parts = _split_labels(cells[columns[0]], separator, location)
            values.update(parts if cells[columns[0]] else [""])
            known = [part for part in parts if part not in UNKNOWN_WORDS]
            labels = frozenset(check_label(part, location) for part in known)
            unknown = frozenset() if len(known) == len(parts) else None
        origin = [cells.get(column, "") for column in (id_column, "group")]
        id_, group = ("" if cell in UNKNOWN_WORDS else cell for cell in origin)
        photos.append(SourcePhoto(file, None, labels, unknown, id_, group, place=location))
    photos = find_photos(source, photos, names)
    used = (*INDEX_COLUMNS, file_column, "group", *columns, id_column)
    skipped = [column for column in table.columns if column not in used]
    notes = [f"skipped columns: {', '.join(skipped)}"] if skipped else []
    if values[""]:
        how = "unknown labels" if one_hot else f"no label (write {UNKNOWN} if they are unknown)"
        notes.append(f"empty cells of labels, read as {how}: {values['']}")
    for word in sorted(UNKNOWN_WORDS & values.keys() - {UNKNOWN}):
        notes.append(f"cells with {word!r}, read as unknown labels: {values[word]}")
    name = "CSV of labels" if kind == "list" else "one-hot CSV"
    if source.is_metadata():
        name = "Hugging Face ImageFolder"
    return SourceDataset(f"{name}: {len(table.rows)} rows", photos, list(one_hot.values()), notes)


def _find_label_columns(source: Source) -> dict[TableKind, list[str]]:
    """Return each kind that a table may have, with the label columns for this kind."""
    table, file_column = source.table, _find_file_column(source)
    text = [column for column in LABEL_COLUMNS if column in table.columns][:1]
    # Columns named "" and "Unnamed: 0" are indexes written by pandas.
    other = {file_column, *LABEL_COLUMNS, *ID_COLUMNS, *SPLIT_COLUMNS, *INDEX_COLUMNS}
    other |= {"group", "confidence"}
    if {"val", "valid", "validation", "test"}.intersection(table.columns):
        other.add("train")  # if there are no such columns, `train` may be a label
    one_hot = [c for c in table.columns if c not in other and _is_one_hot(table, c)]
    kinds: dict[TableKind, list[str]] = {}
    if text:
        kinds["list"] = text
    # If there is a column of labels, a single column of 0 and 1 is possibly no label.
    if one_hot and (not text or len(one_hot) > 1):
        kinds["one-hot"] = one_hot
    if not kinds:
        raise InputError(
            f"{source.path}:{table.header_line}: no column of labels: name a column 'label' "
            "or 'tags', or add one column of 0 and 1 per label"
        )
    return kinds


def _is_one_hot(table: Listing, column: str) -> bool:
    """Return whether most known cells of a column are 0 or 1; `read` then rejects other values."""
    cells = [row.cells.get(column, "") for row in table.rows]
    filled = [cell.casefold() for cell in cells if cell and cell not in UNKNOWN_WORDS]
    return sum(cell in YES or cell in NO for cell in filled) > len(filled) / 2


def _find_file_column(source: Source) -> str:
    table = source.table
    header = f"{source.path}:{table.header_line}"
    found = [column for column in table.columns if is_file_column(column)]
    found = found or [column for column in table.columns if column in ID_COLUMNS]
    if not found:
        raise InputError(
            f"{header}: no column 'file': write the names of the columns in the first line, and "
            "rename the column of file names to 'file'"
        )
    if len(found) > 1 and "file" not in found:
        raise InputError(
            f"{header}: columns {', '.join(found)} may contain file names: name one of them 'file'"
        )
    return "file" if "file" in found else found[0]


def _split_labels(cell: str, separator: str, location: str) -> list[str]:
    """Return the labels in a cell: a text with separators, or a list in Python or JSON."""
    labels: Any = cell.split() if separator == " " else cell.split(separator)
    match = _LIST.fullmatch(cell)
    if match or re.search(r"[][{}]", cell):
        labels = None
        with suppress(yaml.YAMLError):
            # A YAML list may contain quotes of both kinds, and words without quotes.
            labels = yaml.load(f"[{match[1]}]", _LOADER) if match else None
        is_list = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        if not is_list or (len(labels) > 2 and {"0", "1"}.issuperset(labels)):
            raise InputError(
                f"{location}: {short_repr(cell)} should be a list of labels, such as ['cat', 'dog']"
            )
    return [label.strip() for label in labels if label.strip()]


def _read_one_hot(
    cells: dict[str, str], labels: dict[str, str], location: str
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the labels whose cell is 1, and the labels whose cell is empty, `?` or missing."""
    carried, unknown = set(), set()
    for column, label in labels.items():
        cell = cells[column].casefold()
        if cell in YES:
            carried.add(label)
        elif not cell or cells[column] in UNKNOWN_WORDS:
            unknown.add(label)
        elif cell not in NO:
            raise InputError(
                f"{location}: {short_repr(cells[column])} in column {label!r}; write 1 or 0 (true "
                "or false), or leave the cell empty if it is unknown"
            )
    return frozenset(carried), frozenset(unknown)


def _find_separator(source: Source, column: str) -> str:
    """Return the separator in the cells of a column (default: `;`); refuse ambiguous cells."""
    path, rows = source.path, source.table.rows
    cells = [(f"{path}:{row.line}", row.cells.get(column, "")) for row in rows]
    texts = [(location, cell) for location, cell in cells if not _LIST.fullmatch(cell)]
    found = [mark for mark in SEPARATORS if any(mark in cell for _, cell in texts)]
    if len(found) > 1:
        raise InputError(
            f"{path}: labels in the column {column!r} may be separated by {found[0]!r} or by "
            f"{found[1]!r}: choose with --separator"
        )
    captions = {cell: location for location, cell in cells if _CAPTION.search(cell)}
    if 2 * len(captions) > sum(cell not in ("", *UNKNOWN_WORDS) for _, cell in cells):
        caption, location = next(iter(captions.items()))
        raise InputError(
            f"{location}: {short_repr(caption)} seems to be a caption: rename column {column!r} if "
            "it contains no labels, or pass --separator ' ' (words are labels) or ';' (texts are "
            "labels)"
        )
    for location, cell in texts if not found else []:
        if doubt := _DOUBT.search(cell):
            raise InputError(
                f"{location}: {short_repr(cell)} may be one label or several: pass --separator "
                f"{doubt[1] or ' '!r} to split it, or --separator ';' to keep it as one label"
            )
    return found[0] if found else ";"
