"""Read sources.csv, and CSV files that users write by hand or with a spreadsheet."""

import codecs
import csv
import io
from dataclasses import dataclass
from pathlib import Path

from phototag.base.errors import InputError
from phototag.base.files import check_conflicts
from phototag.decoding.sources import read_named_file
from phototag.verification.labels import image_number, normalize

SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class Row:
    """A row of a CSV file.

    Attributes:
        line: Line number of the row's first line, counted from 1.
        cells: Column name in lower case -> text of the cell, stripped and normalized to NFC.
        extra: Cells that are not empty and lie to the right of the last column.
    """

    line: int
    cells: dict[str, str]
    extra: list[str]


@dataclass(frozen=True)
class Listing:
    """The parsed content of a CSV file.

    Attributes:
        columns: Name of each column in lower case -> name as it is written in the file.
        rows: Non-empty rows below the header.
        separator: Character that separates the cells.
        header_line: Line number of the header, counted from 1.
    """

    columns: dict[str, str]
    rows: list[Row]
    separator: str
    header_line: int


def decode_text(data: bytes, place: str) -> str:
    """Decode text that is in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        InputError: The text has another encoding, or it contains merge conflict markers.
    """
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if data.startswith(marks) else "utf-8-sig"
    try:
        return check_conflicts(data.decode(encoding), place)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(encoding, errors="replace")
        line = len(f"{before}.".splitlines())
        name = encoding.upper().removesuffix("-SIG")
        raise InputError(
            f"{place}:{line}: not {name} (byte 0x{data[error.start]:02x}): save the file as UTF-8 "
            "(in a spreadsheet: CSV UTF-8)"
        ) from None


def read_listing(data: bytes, place: str) -> Listing:
    """Parse the content of a CSV file with a header.

    The separator is the character of `SEPARATORS` that divides the header into the most columns.
    Error messages start with `place`, which should be the path of the file.

    Raises:
        InputError: The encoding is neither UTF-8 nor UTF-16, a quotation mark is missing, or two
            columns have the same name; the message contains the line number.
    """
    text = decode_text(data, place)
    header = (text.lstrip().splitlines() or [""])[0]
    widths = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in SEPARATORS}
    separator = max(widths, key=lambda mark: widths[mark])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    table: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for cells in reader:
            cells = [normalize(cell).strip() for cell in cells]
            if any(cells):
                table.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{place}:{line}: {error}: a quotation mark is missing or superfluous"
        ) from None
    if not table:
        return Listing({}, [], separator, 1)
    header_line, titles = table[0]
    while not titles[-1]:
        titles.pop()
    columns: dict[str, str] = {}
    for title in titles:
        column = title.casefold()
        if column in columns:
            raise InputError(f"{place}:{header_line}: two columns are named {column!r}: rename one")
        columns[column] = title
    rows = []
    for line, cells in table[1:]:
        extra = [cell for cell in cells[len(columns) :] if cell]
        rows.append(Row(line, dict(zip(columns, cells, strict=False)), extra))
    return Listing(columns, rows, separator, header_line)


def read_sources(source: Path, listing: str | None) -> dict[int | None, dict[str, str]]:
    """Read sources.csv, and return the number of each photo -> cells of its row.

    `listing` is the path of sources.csv in the source, or None if there is no such file.
    `phototag import` writes the columns `file`, `source`, `group`, `sha256` and, optionally, `id`.

    Raises:
        InputError: The file is not a valid CSV file, or its column `file` is missing.
    """
    if listing is None:
        return {}
    table = read_listing(read_named_file(source, listing), str(source / listing))
    if {"group", "sha256"} & {*table.columns} and "file" not in table.columns:
        raise InputError(
            f"{source / listing}: the column 'file' is missing: add it to the first line"
        )
    numbers = [image_number(row.cells.get("file", "")) for row in table.rows]
    rows = zip(numbers, table.rows, strict=True)
    return {number: row.cells for number, row in rows if number is not None}
