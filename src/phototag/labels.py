"""Label files: one file a class, one image number a line."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from phototag.errors import InputError
from phototag.raw import read_file

_IMAGE_NAME = re.compile(r"im([0-9]+)\.[^.]+")


def image_number(name: str) -> int | None:
    """Return N of a file named imN.jpg (any extension), or None for any other name."""
    match = _IMAGE_NAME.fullmatch(PurePosixPath(name).name)
    return int(match[1]) if match else None


def number_images(names: Sequence[str]) -> list[int | None]:
    """Return the image number of each file, None where the name holds none.

    Raises:
        InputError: Two files have the same number, so that a label could mean either.
    """
    numbers = [image_number(name) for name in names]
    first: dict[int, str] = {}
    for name, number in zip(names, numbers, strict=True):
        if number is not None and first.setdefault(number, name) != name:
            raise InputError(f"{first[number]} and {name} have the same number: remove one of them")
    return numbers


def parse_annotation(text: str, name: str) -> dict[int, int]:
    """Parse one label file.

    Args:
        text: The file's text; blank lines are passed over.
        name: The file's name, for messages.

    Returns:
        Image number -> line number, from 1.

    Raises:
        InputError: A line is not an image number, or a number stands twice.
    """
    lines: dict[int, int] = {}
    for line_number, line in enumerate(text.splitlines(), start=1):
        entry = line.strip()
        if not entry:
            continue
        if not (entry.isascii() and entry.isdigit()):
            raise InputError(f"{name}:{line_number}: {entry!r} is not an image number")
        number = int(entry)
        if number in lines:
            raise InputError(
                f"{name}:{line_number}: image {number} stands on line {lines[number]} already"
            )
        lines[number] = line_number
    return lines


def read_targets(
    source: Path, annotations: Sequence[str], numbers: Sequence[int | None]
) -> dict[str, np.ndarray]:
    """Read the label files as columns of 0 and 1.

    Args:
        source: A folder or zip.
        annotations: The label files in it.
        numbers: The image number of each row; a row without one carries no label.

    Returns:
        Label -> uint8 [num_rows], the labels in alphabetical order.

    Raises:
        InputError: There is no label file, a line is wrong, or a number has no image.
    """
    if not annotations:
        raise InputError(f"{source} has no label file (annotations/CLASS.txt)")
    rows: dict[int, list[int]] = {}
    for row, number in enumerate(numbers):
        if number is not None:
            rows.setdefault(number, []).append(row)
    columns = {}
    for name in sorted(annotations):
        column = np.zeros(len(numbers), np.uint8)
        text = read_file(source, name).decode("utf-8-sig")
        for number, line_number in parse_annotation(text, name).items():
            if number not in rows:
                raise InputError(
                    f"{name}:{line_number}: there is no image im{number}; "
                    "add the photo, or take the line out"
                )
            column[rows[number]] = 1
        columns[PurePosixPath(name).stem] = column
    return columns
