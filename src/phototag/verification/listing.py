"""A list of photos as people and their spreadsheets write it: a CSV of many encodings and makes."""

import codecs
import csv
import io
import re
from dataclasses import dataclass

from phototag.base.errors import InputError
from phototag.verification.labels import normalize

SEPARATORS = ",;\t|"
# UTF-32's mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        line: On which it begins, from 1.
        cells: Column -> cell, without blanks around it, in NFC; those that the row has.
        extra: Cells beyond the columns that are not empty.
    """

    line: int
    cells: dict[str, str]
    extra: list[str]


@dataclass(frozen=True)
class Listing:
    """A CSV.

    Attributes:
        columns: Their names, in small letters.
        titles: Their names as written.
        rows: Without empty ones.
        separator: Between cells.
        header_line: The line of the columns' names, from 1.
    """

    columns: list[str]
    titles: list[str]
    rows: list[Row]
    separator: str
    header_line: int


def decode_text(data: bytes, place: str) -> str:
    """Decode a text file: UTF-8, or UTF-16 and UTF-32 where the first bytes show it.

    One byte a character (Windows-1252 and its kin) is refused: nothing in such a file tells which
    of them it is.

    Raises:
        InputError: It is none of them; the message names the line.
    """
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in data[:2]:  # the first character, of a column's name
        encoding = "utf-16-be" if data[0] == 0 else "utf-16-le"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(encoding, errors="replace")
        line = before.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
        name = encoding.upper().removesuffix("-SIG")
        raise InputError(
            f"{place}:{line}: not {name} (byte 0x{data[error.start]:02x}); save the file as UTF-8 "
            "(in a spreadsheet: CSV UTF-8), or convert it, if it is Windows-1252 (cp1252): "
            "iconv -f CP1252 -t UTF-8"
        ) from None


def read_listing(data: bytes, place: str) -> Listing:
    """Read a CSV whose first line names the columns.

    The separator is the one of `SEPARATORS` that divides the first line into the most columns, or
    the one that a line `sep=;` names, as Excel writes it.

    Args:
        data: The file.
        place: Its name, for messages.

    Raises:
        InputError: The encoding is none that can be told, a quotation mark is missing, or a column
            stands twice; the message names the line.
    """
    text = decode_text(data, place)
    named = re.match(r"sep=([,;\t|])\r?\n", text)
    skipped = 1 if named else 0
    text = text[named.end() :] if named else text
    separator = named[1] if named else _find_separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    columns: list[str] = []
    titles: list[str] = []
    rows: list[Row] = []
    header_line = line = skipped + 1
    while True:
        try:
            cells = [normalize(cell).strip() for cell in next(reader)]
        except StopIteration:
            break
        except csv.Error as error:
            raise InputError(
                f"{place}:{line}: {error}; a quotation mark is missing or one too many"
            ) from None
        begin, line = line, reader.line_num + skipped + 1
        if not any(cells):
            continue
        if columns:
            extra = [cell for cell in cells[len(columns) :] if cell]
            rows.append(Row(begin, dict(zip(columns, cells, strict=False)), extra))
            continue
        while not cells[-1]:
            cells.pop()
        titles, header_line = cells, begin
        columns = [title.casefold() for title in titles]
        for column in columns:
            if columns.count(column) > 1:
                raise InputError(f"{place}:{begin}: the column {column!r} stands twice")
    if data and not columns:
        raise InputError(f"{place}: no line names the columns")
    return Listing(columns, titles, rows, separator, header_line)


def _find_separator(text: str) -> str:
    first = (text.lstrip().splitlines() or [""])[0]
    widths = {s: len(next(csv.reader([first], delimiter=s), [])) for s in SEPARATORS}
    return max(widths, key=lambda separator: widths[separator])
