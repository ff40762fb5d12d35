"""Label files: one file a class, one image number a line.

`annotations/CLASS.txt` names the photos that carry CLASS, `unknown/CLASS.txt`, where there is one,
those of which nobody has said whether they do. All others do not.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from phototag.base.errors import InputError
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.sources import read_file
from phototag.decoding.system_files import is_system_file
from phototag.verification.problems import Problem

# Up to 18 digits: what fits into 64 bits.
_IMAGE_NAME = re.compile(r"im([0-9]{1,18})\.[^.]+")
_NUMBER = re.compile(r"[0-9]{1,18}")
# MIRFLICKR's texts about single photos, which may begin with a number (a tag "2007").
_ABOUT_A_PHOTO = re.compile(r"(.*/)?(meta/.*|(tags|exif|license)[0-9]+\.txt)", re.IGNORECASE)


@dataclass(frozen=True)
class Labels:
    """All label files together.

    Attributes:
        targets: Label, in NFC -> 1, 0 or `UNKNOWN` for each photo, int8 [num_photos]; in
            alphabetical order.
        problems: What the user should know.
        num_lines: Lines with an entry, in all files.
    """

    targets: dict[str, np.ndarray]
    problems: list[Problem]
    num_lines: int


def image_number(name: str) -> int | None:
    """Return N of a file named imN.jpg (any extension), or None for any other name."""
    match = _IMAGE_NAME.fullmatch(name.rpartition("/")[2])
    return int(match[1]) if match else None


def is_about_photo(name: str) -> bool:
    """Tell a text about one photo, such as im1.txt or meta/tags/tags1.txt, from a label file."""
    return _ABOUT_A_PHOTO.fullmatch(name) is not None or image_number(name) is not None


def normalize(text: str) -> str:
    """Return text in Unicode's composed form (NFC): macOS writes names in the decomposed one."""
    return unicodedata.normalize("NFC", text)


def refuse_names(names: Sequence[str]) -> dict[str, str]:
    """Find the files that cannot be taken because of their name.

    Returns:
        File -> reason; of two files of one number neither is taken, since a label could mean
        either.
    """
    numbers = [image_number(name) for name in names]
    count = Counter(numbers)
    first = {number: name for name, number in zip(names[::-1], numbers[::-1], strict=True)}
    refused = {}
    for name, number in zip(names, numbers, strict=True):
        if is_system_file(name):
            refused[name] = "left by the operating system"
        elif number is None:
            refused[name] = "wrong name: not imN.jpg, with a number N"
        elif count[number] > 1:
            twin = first[number] if first[number] != name else "another file"
            refused[name] = f"same number: as {twin}"
    return refused


def parse_annotation(data: bytes, name: str) -> tuple[dict[int, int], list[Problem]]:
    """Parse one label file.

    Args:
        data: The file's bytes, UTF-8.
        name: The file's name, for the problems.

    Returns:
        Image number -> line number, from 1; and the problems: lines that are no image number are
        rejected, a number that stands twice counts once, and a byte order mark, Windows line ends
        and blank lines are noted.
    """
    problems = []
    if data.startswith(b"\xef\xbb\xbf"):
        problems.append(Problem(name, 0, "byte order mark", "", "noted"))
    if b"\r" in data:
        problems.append(Problem(name, 0, "Windows line ends", "", "noted"))
    lines: dict[int, int] = {}
    blank = 0
    for line_number, line in enumerate(_split_lines(data), start=1):
        entry = line.strip()
        if not entry:
            blank += 1
        elif not _NUMBER.fullmatch(entry):
            shown = repr(entry if len(entry) <= 40 else f"{entry[:40]}...")
            problems.append(Problem(name, line_number, "not an image number", shown, "rejected"))
        elif int(entry) in lines:
            twice = f"{int(entry)}, as on line {lines[int(entry)]}"
            problems.append(Problem(name, line_number, "the same number twice", twice, "noted"))
        else:
            lines[int(entry)] = line_number
    if blank:
        problems.append(Problem(name, 0, "blank lines", str(blank), "noted"))
    return lines, problems


def read_labels(
    source: Path,
    files: Sequence[str],
    names: Sequence[str],
    expected: Sequence[str] = (),
    unknown: Sequence[str] = (),
) -> Labels:
    """Read the label files as columns of 1, 0 and `UNKNOWN`.

    Args:
        source: A folder or zip.
        files: The files in its annotations/ folder.
        names: The photos; one whose name holds no number carries no label.
        expected: The labels to read; empty for those of all files.
        unknown: The files in its unknown/ folder.

    Raises:
        InputError: There is no label file, an expected one is missing, one is unreadable, or two
            have one name; a photo both carries a label and is not known to, or a label is known
            for no photo.
    """
    wanted = {normalize(label) for label in expected}
    paths, problems = _find_label_files(source, files, "annotations", wanted)
    doubtful, more = _find_label_files(source, unknown, "unknown", wanted)
    problems += more
    if not paths:
        raise InputError(f"{source} has no label file (annotations/CLASS.txt)")
    if missing := [label for label in expected if normalize(label) not in paths]:
        raise InputError(
            f"{source} has no annotations/{missing[0]}.txt: add it, or take {missing[0]!r} out of "
            "data.labels"
        )
    if alone := sorted(doubtful.keys() - paths.keys()):
        raise InputError(
            f"{source / doubtful[alone[0]]} has no annotations/{alone[0]}.txt beside it: add that, "
            f"empty where no photo is known to carry {alone[0]!r}"
        )

    rows: dict[int, list[int]] = {}
    for row, name in enumerate(names):
        number = image_number(name)
        if number is not None:
            rows.setdefault(number, []).append(row)
    targets, num_lines = {}, 0
    for label, name in paths.items():
        column = targets[label] = np.zeros(len(names), np.int8)
        lines, found = _read_numbers(source, name)
        if not lines:
            found.append(Problem(name, 0, "a label without a photo", "", "noted"))
        problems += [*found, *_mark(column, 1, rows, lines, name)]
        num_lines += len(lines) + sum(problem.line > 0 for problem in found)
        if label not in doubtful:
            continue
        doubts, found = _read_numbers(source, doubtful[label])
        problems += [*found, *_mark(column, UNKNOWN, rows, doubts, doubtful[label])]
        num_lines += len(doubts) + sum(problem.line > 0 for problem in found)
        for number in sorted(doubts.keys() & lines.keys())[:1]:
            raise InputError(
                f"{source / doubtful[label]}:{doubts[number]}: im{number} stands in {name} too, on "
                f"line {lines[number]}: either it is known to carry {label!r} or it is not; take "
                "it out of one of them"
            )
        if rows and rows.keys() <= doubts.keys():
            raise InputError(
                f"{source / doubtful[label]} names every photo, so that {label!r} is known for "
                "none: take it out and the label with it (data.labels names those to learn), or "
                "label some photos"
            )
    return Labels(targets, problems, num_lines)


def _find_label_files(
    source: Path, files: Sequence[str], folder: str, wanted: set[str]
) -> tuple[dict[str, str], list[Problem]]:
    """Return label -> file of what lies in a folder, and what was passed over."""
    problems: list[Problem] = []
    about: list[str] = []
    paths: dict[str, str] = {}
    for name in sorted(files, key=normalize):
        path = PurePosixPath(name)
        label = normalize(path.stem)
        in_place = path.parent.name.casefold() == folder
        if is_about_photo(name) and label not in wanted:
            about.append(name)
        elif path.suffix.lower() != ".txt" or not in_place or is_system_file(name):
            problems.append(Problem(name, 0, "not a label file", "passed over", "noted"))
        elif wanted and label not in wanted:
            problems.append(Problem(name, 0, "an unknown class", "not in data.labels", "noted"))
        elif label in paths:
            raise InputError(
                f"{paths[label]} and {name} in {source} are label files of one name: join them"
            )
        else:
            paths[label] = name
    if about:
        passed = f"{len(about)} passed over"
        problems.append(Problem(about[0], 0, "texts about single photos", passed, "noted"))
    return paths, problems


def _read_numbers(source: Path, name: str) -> tuple[dict[int, int], list[Problem]]:
    try:
        data = read_file(source, name)
    except InputError as error:
        raise InputError(f"{source / name}: {error}") from None
    return parse_annotation(data, name)


def _mark(
    column: np.ndarray, value: int, rows: dict[int, list[int]], lines: dict[int, int], name: str
) -> list[Problem]:
    """Write a value for the photos that a file names; those that are not there are told."""
    problems = []
    for number, line in lines.items():
        if number in rows:
            column[rows[number]] = value
        else:
            problems.append(Problem(name, line, "no such image", f"im{number}", "rejected"))
    return problems


def _split_lines(data: bytes) -> list[str]:
    # Only \n, \r\n and \r end a line: str.splitlines would also take form feeds and the like.
    text = data.decode("utf-8-sig", errors="replace")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]
