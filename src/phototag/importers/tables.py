"""Tables with one photo a row: a CSV of labels, a tags CSV, or a one-hot CSV."""

from functools import lru_cache
from pathlib import Path
from reprlib import repr as short_repr
from typing import Literal

from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.importers.photo_files import find_photo
from phototag.importers.source import ImportOptions, Source, SourceDataset, SourcePhoto, check_label
from phototag.verification.listing import Listing

TableKind = Literal["list", "tags", "one-hot"]
DESCRIPTIONS: dict[str, str] = {
    "list": "CSV of labels",
    "tags": "tags CSV",
    "one-hot": "one-hot CSV",
}
FILE_COLUMNS = ("file", "file_name", "filename", "filepath", "file_path", "path", "image",
                "image_name", "image_path", "img", "photo")  # fmt: skip
LABEL_COLUMNS = ("label", "labels")
TAG_COLUMNS = ("tag", "tags", "keyword", "keywords", "category", "categories", "class", "classes")
ID_COLUMNS = ("id", "image_id")
YES, NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}
UNKNOWN = "?"
Cells = tuple[frozenset[str], frozenset[str] | None]  # labels, and unknown labels (None for all)
SEPARATORS = ",;|"


def recognize(source: Source, kind: TableKind) -> bool:
    """Return whether a source is a table that can be read as this kind.

    Raises:
        InputError: The source is a table, but of no kind.
    """
    return source.is_table() and kind in _find_kinds(source)


@lru_cache(maxsize=1)
def _find_kinds(source: Source) -> dict[TableKind, list[str]]:
    return find_label_columns(source.table, source.path)


def read(source: Source, kind: TableKind) -> SourceDataset:
    """Read a table of this kind.

    Raises:
        InputError: A row is wrong; the message names its line.
    """
    photos, notes, labels = read_table(source.path, source.table, kind, source.options)
    description = f"{DESCRIPTIONS[kind]}: {len(photos)} rows"
    return SourceDataset.collect(source.path, description, photos, notes, labels)


def find_label_columns(table: Listing, path: Path) -> dict[TableKind, list[str]]:
    """Return the columns with labels for each kind that a table can be read as.

    Raises:
        InputError: No column can hold file names, or none can hold labels.
    """
    _find_file_column(table, path)
    header = f"{path}:{table.header_line}"
    named = [column for column in table.columns if column in LABEL_COLUMNS]
    if len(named) > 1:
        raise InputError(f"{header}: columns 'label' and 'labels'; keep one of them")
    # pandas writes its index as a column without a name.
    other = (*FILE_COLUMNS, *ID_COLUMNS, "group", "")
    free = [column for column in table.columns if column not in other]
    one_hot = [column for column in free if _is_one_hot(table, [column], share=0.5)]
    tags = [column for column in free if column in TAG_COLUMNS]
    if not tags and len(free) == 1 and not one_hot:
        tags = free
    kinds: dict[TableKind, list[str]] = {}
    if named or tags:
        kinds["list" if named else "tags"] = named or tags
    text = named or tags
    # Beside a column with labels, a single column of 0 and 1 may be some other property. A column
    # with labels that are all 0 and 1 is ambiguous.
    several = len(set(one_hot) - set(text)) > 1
    if one_hot and (not text or several or _is_one_hot(table, text, share=1)):
        kinds["one-hot"] = one_hot
    if not kinds:
        raise InputError(
            f"{header}: no column of labels; name a column 'label' or 'tags', or write one column "
            "of 0 and 1 per label"
        )
    return kinds


def _is_one_hot(table: Listing, columns: list[str], share: float) -> bool:
    """Return whether more than a share (0..1, or all) of the filled cells are 0, 1 or unknown.

    The cells that are not are errors, which reading the table reports.
    """
    cells = [row.cells.get(column, "").casefold() for row in table.rows for column in columns]
    filled = [cell for cell in cells if cell]
    known = sum(cell in YES or cell in NO for cell in filled)
    fitting = known + filled.count(UNKNOWN)
    return known > 0 and (fitting > share * len(filled) or fitting == len(filled))


def read_table(
    path: Path,
    table: Listing,
    kind: TableKind,
    options: ImportOptions,
    root: Path | None = None,
) -> tuple[list[SourcePhoto], list[str], list[str]]:
    """Read the photos of a table.

    An empty cell of labels means no label, and ? means that all labels are unknown. In a one-hot
    table, an empty cell and ? mean that the label is unknown.

    Args:
        path: Path of the table.
        table: Content of the table.
        kind: Kind of the table, a key of `find_label_columns`.
        options: Options of the import.
        root: Folder that must contain the photos (default: no restriction).

    Returns:
        The photos, notes, and the labels of a one-hot table.

    Raises:
        InputError: A row is wrong; the message names its line.
    """
    header = f"{path}:{table.header_line}"
    file_column = _find_file_column(table, path)
    columns = find_label_columns(table, path)[kind]
    titles = dict(zip(table.columns, table.titles, strict=True))
    one_hot: dict[str, str] = {}
    separator = options.separator or ";"
    if kind == "one-hot":
        one_hot = {column: check_label(titles[column], header) for column in columns}
    elif len(columns) > 1:
        raise InputError(f"{header}: several columns of tags: {', '.join(columns)}; keep one")
    elif kind == "tags" and options.separator is None:
        separator = _find_separator(table, columns[0], path)
    id_column = next((column for column in ID_COLUMNS if column in table.columns), None)
    photos: list[SourcePhoto] = []
    seen: dict[str, str] = {}
    for row in tqdm(table.rows, "read", disable=None):
        location = f"{path}:{row.line}"
        if row.extra or any(c not in row.cells for c in (file_column, *columns)):
            raise InputError(
                f"{location}: number of cells is {len(row.cells) + len(row.extra)}, number of "
                f"columns {len(table.columns)}; write all labels of a photo in one cell, separated "
                f"by {separator!r}, and {table.separator!r} between the cells"
            )
        cells = row.cells
        folder = options.images or path.parent
        name = find_photo(folder, cells[file_column], location, seen, root)
        if one_hot:
            labels, unknown = _read_one_hot(cells, one_hot, location)
        else:
            labels, unknown = _read_labels(cells[columns[0]], separator, location)
        id_ = cells.get(id_column, "") if id_column else ""
        photos.append(SourcePhoto(name, root, labels, unknown, id_, cells.get("group", "")))
    used = ("", file_column, "group", *columns, id_column)
    skipped = [column for column in table.columns if column not in used]
    notes = [f"skipped columns: {', '.join(skipped)}"] if skipped else []
    return photos, notes, list(one_hot.values())


def _find_file_column(table: Listing, path: Path) -> str:
    header = f"{path}:{table.header_line}"
    found = [column for column in table.columns if column in FILE_COLUMNS]
    if not found:
        raise InputError(f"{header}: no column 'file'; the first line must name the columns")
    if len(found) > 1 and "file" not in found:
        raise InputError(
            f"{header}: columns {', '.join(found)} may be the file name; name one of them 'file'"
        )
    return "file" if "file" in found else found[0]


def _read_labels(cell: str, separator: str, location: str) -> Cells:
    """Return the labels that a cell lists, and the unknown labels."""
    if cell == UNKNOWN:
        return frozenset(), None
    parts = cell.split() if separator.isspace() else cell.split(separator)
    return frozenset(check_label(part, location) for part in parts if part.strip()), frozenset()


def _read_one_hot(cells: dict[str, str], labels: dict[str, str], location: str) -> Cells:
    """Return the labels whose cell is 1, and those whose cell is empty or ?."""
    carried, unknown = set(), set()
    for column, label in labels.items():
        cell = cells[column].casefold()
        if cell in YES:
            carried.add(label)
        elif cell in ("", UNKNOWN):
            unknown.add(label)
        elif cell not in NO:
            raise InputError(
                f"{location}: {short_repr(cells[column])} in column {label!r}; write 1 or 0 (true "
                "or false), or leave the cell empty if it is unknown"
            )
    return frozenset(carried), frozenset(unknown)


def _find_separator(table: Listing, column: str, path: Path) -> str:
    """Return the only separator that the cells of a column contain.

    Raises:
        InputError: The cells contain several, or only spaces, which may be part of a label.
    """
    first: dict[str, str] = {}
    for row in table.rows:
        cell = row.cells.get(column, "")
        for mark in (*SEPARATORS, " "):
            if mark in cell:
                first.setdefault(mark, f"{path}:{row.line}: tags {short_repr(cell)}")
    spaced = first.pop(" ", None)
    if len(first) > 1:
        mark, other = list(first)[:2]
        raise InputError(
            f"{first[other]} may be separated by {mark!r} or by {other!r}: choose with --separator"
        )
    if spaced and not first:
        raise InputError(
            f"{spaced} may be several tags or one: choose with --separator ' ' or --separator ';'"
        )
    return next(iter(first), ";")
