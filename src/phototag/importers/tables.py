"""Tables of photos, one a row: labels in a cell, tags in a cell, or a column of 0 and 1 a label."""

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.importers.collection import (
    EVERY,
    NONE,
    Entry,
    Place,
    check_label,
    confine,
    find_photo,
    shorten,
    shorten_text,
)
from phototag.verification.listing import Listing, Row

Kind = Literal["list", "tags", "one-hot"]
Said = tuple[frozenset[str], frozenset[str]]  # labels that a photo carries, and those not known
FILES = ("file", "file_name", "filename", "filepath", "file_path", "path", "image", "image_name",
         "image_path", "img", "photo")  # fmt: skip
LABELS = ("label", "labels")
TAGS = ("tag", "tags", "keyword", "keywords", "category", "categories", "class", "classes")
IDS = ("id", "image_id")
YES, NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}
UNKNOWN = "?"
SEPARATORS = ",;|"
NAMES: dict[Kind, str] = {"list": "CSV of labels", "tags": "tags CSV", "one-hot": "one-hot CSV"}


def recognize_table(listing: Listing, file: str) -> list[Kind]:
    """Tell how a table can be read; between two ways the user decides.

    Raises:
        InputError: In none.
    """
    _find_file_column(listing, file)
    header = Place(file, listing.header_line)
    named = [column for column in listing.columns if column in LABELS]
    if len(named) > 1:
        raise InputError(f"{header}: the columns 'label' and 'labels' both; keep one")
    flags = _find_flags(listing)
    tags = [] if named else _find_tags(listing, flags)
    kinds: list[Kind] = ["list"] if named else ["tags"] if tags else []
    # Beside labels in a cell, one column of 0 and 1 may say anything else of a photo.
    others = set(flags) - {*named, *tags}
    if (flags and not kinds) or len(others) > 1 or _hold_flags_alone(listing, [*named, *tags]):
        kinds.append("one-hot")
    if not kinds:
        raise InputError(
            f"{header}: no column 'label', none of tags and none of 0 and 1; the first line names "
            "them"
        )
    return kinds


def choose_kind(kinds: list[Kind], wanted: Kind | None, file: str) -> Kind:
    """Choose the one way to read a table, or the user's.

    Raises:
        InputError: There are two, or the user's is none of them.
    """
    if wanted is not None and wanted not in kinds:
        raise InputError(f"{file} is no {NAMES[wanted]}: it looks like a {NAMES[kinds[0]]}")
    if wanted is None and len(kinds) > 1:
        ways = " or as a ".join(NAMES[kind] for kind in kinds)
        options = " or ".join(f"--as {kind}" for kind in kinds)
        raise InputError(f"{file} can be read as a {ways}: say which with {options}")
    return wanted or kinds[0]


def read_table(
    source: Path,
    listing: Listing,
    kind: Kind,
    folder: Path,
    separator: str | None = None,
    root: Path | None = None,
) -> tuple[list[Entry], list[str], list[str]]:
    """Read the photos of a table.

    An empty cell of 0 and 1, or a `?`, says that the label is not known, a `?` in a cell of labels
    that none is. A cell of labels that is empty says that the photo carries none.

    Args:
        source: The file.
        listing: What it holds.
        kind: One of `recognize_table`.
        folder: What the photos' names start from.
        separator: Between labels of a cell; None for semicolons in a list, and for what the cells
            show in tags.
        root: The folder out of which no name may lead, of a table that came with the photos.

    Returns:
        The photos, what the user should know, and the labels that have a column of their own.

    Raises:
        InputError: A row is wrong; the message names its line.
    """
    file = str(source)
    file_column = _find_file_column(listing, file)
    columns = flags = _find_flags(listing)
    if kind != "one-hot":
        columns = [column for column in listing.columns if column in LABELS]
        columns = columns or _find_tags(listing, flags)
        if len(columns) > 1:
            place = Place(file, listing.header_line)
            raise InputError(f"{place}: the columns {shorten(columns)} all hold tags; keep one")
        if separator is None:
            separator = ";" if kind == "list" else _guess_separator(listing, columns[0], file)
    else:
        separator = None
    read_cells = _choose_reader(listing, columns, separator, file)
    ids = [column for column in IDS if column in listing.columns]
    entries: list[Entry] = []
    seen: dict[str, Place] = {}
    for row in tqdm(listing.rows, "read", disable=None):
        place = Place(file, row.line)
        _check_width(row, listing, file_column, columns, separator, place)
        path = find_photo(folder, row.cells.get(file_column, ""), place, seen)
        carried, unknown = read_cells(row, place)
        name = str(path) if root is None else confine(path, root, place)
        number = row.cells.get(ids[0], "") if ids else ""
        entries.append(Entry(name, root, carried, unknown, number, row.cells.get("group", "")))
    used = {file_column, "group", *columns, *ids}
    others = [column for column in listing.columns if column and column not in used]
    notes = [f"columns passed over: {', '.join(others)}"] if others else []
    offered = [listing.titles[listing.columns.index(column)] for column in flags]
    return entries, notes, offered if kind == "one-hot" else []


def _find_file_column(listing: Listing, file: str) -> str:
    place = Place(file, listing.header_line)
    found = [column for column in listing.columns if column in FILES]
    if not found:
        raise InputError(f"{place}: no column 'file'; the first line names them")
    if len(found) > 1 and "file" not in found:
        raise InputError(f"{place}: {shorten(found)} may name the photo; call one of them 'file'")
    return "file" if "file" in found else found[0]


def _free_columns(listing: Listing) -> list[str]:
    """Return the columns that may hold labels; one without a name is pandas' index."""
    return [c for c in listing.columns if c and c not in (*FILES, *IDS, "group")]


def _find_flags(listing: Listing) -> list[str]:
    """Find the columns of 0 and 1: most of their cells are, a wrong one is told by its line."""
    found = []
    for column in _free_columns(listing):
        cells = [row.cells[column].casefold() for row in listing.rows if row.cells.get(column)]
        known = sum(cell in YES or cell in NO for cell in cells)
        if known and 2 * (known + cells.count(UNKNOWN)) > len(cells):
            found.append(column)
    return found


def _hold_flags_alone(listing: Listing, columns: list[str]) -> bool:
    """Tell columns of labels that are called 0 and 1, or are no labels."""
    cells = {row.cells.get(column, "").casefold() for row in listing.rows for column in columns}
    return bool(cells & (YES | NO)) and cells <= YES | NO | {"", UNKNOWN}


def _find_tags(listing: Listing, flags: list[str]) -> list[str]:
    """Find the columns of tags: by their names, or the only one that there is."""
    free = _free_columns(listing)
    named = [column for column in free if column in TAGS]
    return named or (free if len(free) == 1 and not flags else [])


def _choose_reader(
    listing: Listing, columns: list[str], separator: str | None, file: str
) -> Callable[[Row, Place], Said]:
    if separator is not None:
        return lambda row, place: _split_labels(row.cells[columns[0]], separator, place)
    header = Place(file, listing.header_line)
    titles = dict(zip(listing.columns, listing.titles, strict=True))
    labels = {column: check_label(titles[column], header) for column in columns}
    return lambda row, place: _read_flags(row, labels, place)


def _split_labels(cell: str, separator: str, place: Place) -> Said:
    if cell == UNKNOWN:
        return NONE, EVERY
    parts: Iterable[str] = cell.split() if separator.isspace() else cell.split(separator)
    return frozenset(check_label(part, place) for part in parts if part.strip()), NONE


def _read_flags(row: Row, labels: dict[str, str], place: Place) -> Said:
    carried, unknown = set(), set()
    for column, label in labels.items():
        cell = row.cells[column].casefold()
        if cell in YES:
            carried.add(label)
        elif cell in ("", UNKNOWN):
            unknown.add(label)
        elif cell not in NO:
            raise InputError(
                f"{place}: {shorten_text(repr(row.cells[column]))} in the column {label!r}; write "
                "1 or 0, true or false, and nothing or ? where it is not known"
            )
    return frozenset(carried), frozenset(unknown)


def _guess_separator(listing: Listing, column: str, file: str) -> str:
    """Return the one mark that stands in the cells; a space may also stand within a label."""
    first: dict[str, tuple[Place, str]] = {}
    for row in listing.rows:
        cell = row.cells.get(column, "")
        for mark in (*SEPARATORS, " "):
            if mark in cell:
                first.setdefault(mark, (Place(file, row.line), cell))
    spaced = first.pop(" ", None)
    if len(first) > 1:
        (mark, _), (other, (place, cell)) = list(first.items())[:2]
        raise InputError(
            f"{place}: tags such as {shorten_text(repr(cell))} may be separated by {mark!r} or by "
            f"{other!r}: say by which with --separator"
        )
    if first:
        return next(iter(first))
    if spaced:
        place, cell = spaced
        raise InputError(
            f"{place}: {shorten_text(repr(cell))} may be {len(cell.split())} tags or one: say "
            "--separator ' ' or --separator ';'"
        )
    return ";"


def _check_width(
    row: Row,
    listing: Listing,
    file_column: str,
    columns: list[str],
    separator: str | None,
    place: Place,
) -> None:
    """Make sure that a row has all of its cells and no more."""
    name = row.cells.get(file_column, "")
    if row.extra:
        width = f"{len(row.cells) + len(row.extra)} cells where the first line names "
        width += f"{len(listing.columns)} columns"
        if separator is None:
            raise InputError(f"{place}: {width}; take out what is too many")
        labels = [value for column, value in row.cells.items() if column != file_column]
        mark = ";" if separator == listing.separator else separator
        words = "semicolons" if mark == ";" else repr(mark)
        raise InputError(
            f"{place}: {width}; labels of one photo stand in one cell, separated by {words}: "
            + _write_row([name, mark.join([*labels, *row.extra])], listing)
        )
    for column in columns:
        if column not in row.cells:
            how = "" if separator is None else (
                f"; a photo without labels is written {_write_row([name, ''], listing)}"
            )  # fmt: skip
            raise InputError(f"{place}: no cell of the column {column!r}{how}")


def _write_row(cells: list[str], listing: Listing) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=listing.separator, lineterminator="").writerow(cells)
    return text.getvalue()
