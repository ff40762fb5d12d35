"""Appending of answers to the corrections file; `verification.corrections` reads it."""

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
    """Append an answer in one write under a lock, and wait until it is on the disk.

    A process that is killed leaves the whole row or no row.

    Raises:
        InputError: The columns of the file are not `COLUMNS`, so that a row would not fit.
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
        else:
            file.seek(-1, os.SEEK_END)
            row = row if file.read(1) == b"\n" else b"\n" + row
        file.write(row)
        os.fsync(file.fileno())


def _format_row(cells: Iterable[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
