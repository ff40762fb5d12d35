"""Appends answers to the corrections file."""

import csv
import io
import os
from collections.abc import Iterable
from dataclasses import astuple
from pathlib import Path

from filelock import FileLock

from phototag.base.errors import InputError
from phototag.verification.corrections import COLUMNS, Answer


def append_answer(path: Path, answer: Answer) -> None:
    """Append an answer, in one write under a lock, and wait until it is on the disk.

    Pages that append at once wait for each other, and a kill at any moment leaves the row or none
    of it.

    Raises:
        InputError: The file was saved in another layout, so that a row would not fit in.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    row = _format_row(astuple(answer))
    with FileLock(path.with_name(f".{path.name}.lock")), path.open("a+b", buffering=0) as file:
        file.seek(0)
        header = file.readline().removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n")
        if not header:
            row = _format_row(COLUMNS) + row
        elif header.decode(errors="replace") != ",".join(COLUMNS):
            raise InputError(
                f"{path}: the first line must be {','.join(COLUMNS)}: save the file as UTF-8, with "
                "commas and the columns in this order"
            )
        end = file.seek(0, os.SEEK_END)
        if end and header:
            file.seek(-1, os.SEEK_END)
            row = row if file.read(1) == b"\n" else b"\n" + row
        if file.write(row) != len(row):
            file.truncate(end)
            raise OSError(f"{path}: the disk took only a part of a row")
        os.fsync(file.fileno())


def _format_row(cells: Iterable[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
