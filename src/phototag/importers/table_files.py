"""Parsing of tables with one photo per row: CSV, TSV, JSON Lines and Parquet."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from phototag.base.errors import InputError
from phototag.base.params import describe_validation_error
from phototag.verification.labels import normalize
from phototag.verification.listing import Listing, Row, decode_text, read_listing

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
FILE_COLUMNS = ("file", "filename", "fname", "filepath", "path", "image", "imagename", "imagepath",
                "img", "photo")  # fmt: skip
# If a table has several of these columns, only the first one in this order is read.
LABEL_COLUMNS = ("label", "labels", "tag", "tags", "keyword", "keywords", "category", "categories",
                 "class", "classes", "choice", "choices")  # fmt: skip
UNKNOWN = "?"
PREDICTED = ["file", "labels", "error"]  # first columns of the tables that `predict` writes
_LINE = TypeAdapter(dict[str, Any])


def is_file_column(column: str) -> bool:
    """Return whether a column has one of the names in `FILE_COLUMNS`, such as `File Name`."""
    return re.sub("[ _-]", "", column) in FILE_COLUMNS


def parse_table(data: bytes, path: Path, separator: str | None) -> Listing:
    """Parse the content of a table, whose format is the suffix of `path`.

    If `separator` is None, each text in JSON Lines is one label.

    Raises:
        InputError: The content is invalid. The message contains the line number.
    """
    if path.suffix.lower() in (".jsonl", ".parquet"):
        is_text = path.suffix.lower() == ".jsonl"
        text = decode_text(data, str(path)) if is_text else _convert_parquet(data, path)
        table = _parse_json_lines(text, path, separator)
    else:
        table = read_listing(data, str(path))
    is_predicted = list(table.columns)[: len(PREDICTED)] == PREDICTED
    return _select_predictions(table) if is_predicted else table


def _select_predictions(table: Listing) -> Listing:
    """Return the file names and labels of the photos that `predict` could read."""
    rows = []
    for row in table.rows:
        file, labels, error = (row.cells.get(column, "") for column in PREDICTED)
        if error not in ("", UNKNOWN):
            continue
        if not labels.startswith("["):
            labels = json.dumps([label for label in labels.split(";") if label], ensure_ascii=False)
        rows.append(Row(row.line, {"file": file, "labels": labels}, []))
    return replace(table, columns={"file": "file", "labels": "labels"}, rows=rows)


def _convert_parquet(data: bytes, path: Path) -> str:
    """Convert a Parquet table to JSON Lines."""
    try:
        return pd.read_parquet(io.BytesIO(data)).to_json(orient="records", lines=True)
    except (ImportError, OverflowError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{path} cannot be read as a table of file names and labels ({reason}): save it as "
            "CSV, and photos that it contains as files"
        ) from None


def _parse_json_lines(text: str, path: Path, separator: str | None) -> Listing:
    """Convert JSON Lines to a table; missing and null labels become unknown (see `parse_table`)."""
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
            # File names are not normalized. Labels are, so that equal labels are found.
            row.cells[column] = cell if is_file_column(column) else normalize(cell).strip()
        rows.append(row)
    for row in rows:
        for column in titles:
            row.cells.setdefault(column, "" if is_file_column(column) else UNKNOWN)
    return Listing(titles, rows, ",", 1)


def _format_labels(value: Any, separator: str | None, location: str) -> str:
    """Return a cell with a list of labels, or with a text that contains separators."""
    if isinstance(value, str) and (separator or value.startswith("[")):
        return value
    labels = value if isinstance(value, list) else [value]
    if not all(label is None or isinstance(label, str | int | float) for label in labels):
        raise InputError(f"{location} should be a list of labels, not {short_repr(value)}")
    return json.dumps([str(label) for label in labels], ensure_ascii=False)
