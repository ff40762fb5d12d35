"""Read label files, one per class, which list one image number per line.

`annotations/CLASS.txt` lists the photos that carry the label CLASS. The optional
`unknown/CLASS.txt` lists the photos whose target is unknown. All other photos lack the label.
"""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from phototag.base.errors import InputError
from phototag.dataset.manifest import check_labels
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.sources import read_named_file
from phototag.decoding.system_files import is_system_file
from phototag.verification.problems import Problem

# Image numbers have at most 18 digits, so that they fit into 64 bits.
_IMAGE_NAME = re.compile(r"im([0-9]{1,18})\.[^.]+")
_NUMBER = re.compile(r"[0-9]{1,18}")
MAX_LABEL_BYTES = 200  # a file name, with .txt and a temporary suffix, may have 255 bytes
# Characters that are not allowed in file names on Linux, macOS or Windows.
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')
UNLISTED = -2  # target of a label on the photos of an import that does not list this label


@dataclass(frozen=True)
class Labels:
    """The content of the label files of a dataset or import.

    Attributes:
        targets: Label -> 1, 0 or `UNKNOWN` for each photo, int8 [num_photos]. Labels are sorted by
            name and are in Unicode's composed form (NFC).
        problems: Problems found in the label files.
        num_lines: Number of non-blank lines in all label files together.
    """

    targets: dict[str, np.ndarray]
    problems: list[Problem]
    num_lines: int


def image_number(name: str) -> int | None:
    """Return the number N of a file named imN with any extension, or None for other names."""
    match = _IMAGE_NAME.fullmatch(name.rpartition("/")[2])
    return int(match[1]) if match else None


def normalize(text: str) -> str:
    """Return text in Unicode's composed form (NFC); macOS stores names in the decomposed form."""
    return unicodedata.normalize("NFC", text)


def suggest(label: str, labels: Iterable[str]) -> str:
    """Return a question about the most similar of some labels, or "" if none is similar."""
    names = {normalize(name).casefold(): name for name in labels}
    near = difflib.get_close_matches(normalize(label).casefold(), names, 1)
    return f" (did you mean {names[near[0]]}?)" if near else ""


def check_label(label: str, location: object) -> str:
    """Validate a label; return it in composed Unicode (NFC), without surrounding whitespace.

    Error messages start with `location`, the place of the label (file and line or key).

    Raises:
        InputError: The label is not a valid file name, or not a valid column of the manifest.
    """
    label = normalize(label).strip()
    file = f"{label}.txt"
    too_long = len(label.encode(errors="replace")) > MAX_LABEL_BYTES
    if not label or too_long or is_system_file(file) or _FORBIDDEN.search(label):
        raise InputError(f"{location}: label {label[:40]!r} cannot be a file name: rename it")
    try:
        check_labels([label])
    except InputError as error:
        raise InputError(f"{location}: {error}") from None
    return label


def find_invalid_names(names: Sequence[str]) -> dict[str, str]:
    """Return file -> reason for the files whose names are invalid.

    All files that share an image number are invalid, because a label could refer to any of them.
    """
    count = Counter(image_number(name) for name in names)
    invalid = {}
    for name in names:
        number = image_number(name)
        if number is None:
            invalid[name] = "wrong name: expected imN.jpg with a number N"
        elif count[number] > 1:
            invalid[name] = f"same number: {count[number]} files have the number {number}"
    return invalid


def parse_label_file(data: bytes, name: str) -> tuple[dict[int, int], list[Problem]]:
    """Parse the content of one label file in UTF-8; blank lines are ignored.

    Returns:
        Image number -> line of its first occurrence, from 1; and a problem for each invalid line.
    """
    problems = []
    lines: dict[int, int] = {}
    text = data.decode("utf-8-sig", errors="replace")
    for line, entry in enumerate(map(str.strip, text.splitlines()), start=1):
        if not entry:
            continue
        if _NUMBER.fullmatch(entry):
            lines.setdefault(int(entry), line)
        else:
            found = repr(entry[:40])
            problems.append(Problem(name, line, "not an image number", found, "rejected"))
    return lines, problems


def list_labels(source: Path, files: Sequence[str]) -> list[str]:
    """Return the labels of the files in a folder `annotations`; see `read_labels`."""
    return list(_find_label_files(source, files, "annotations", ())[0])


def read_labels(
    source: Path,
    files: Sequence[str],
    names: Sequence[str],
    expected: Collection[str] = (),
    unknown: Sequence[str] = (),
) -> Labels:
    """Read label files and return the targets of the photos to which they refer.

    Args:
        source: Folder or zip of the dataset.
        files: Paths of the files in the folder `annotations`.
        names: Paths of the photos; photos without a number in the name carry no label.
        expected: Labels to read, in composed Unicode; omit to read all label files.
        unknown: Paths of the files in the folder `unknown`.

    Raises:
        InputError: A label file is unreadable, two files are label files of the same label, or a
            photo is listed in both the `annotations` and the `unknown` file of a label.
    """
    paths, problems = _find_label_files(source, files, "annotations", expected)
    unknown_paths, more = _find_label_files(source, unknown, "unknown", expected)
    problems += more
    if alone := sorted(unknown_paths.keys() - paths.keys()):
        raise InputError(
            f"{source / unknown_paths[alone[0]]} requires annotations/{alone[0]}.txt: add it "
            "(empty if no photo carries the label)"
        )
    rows = {image_number(name): row for row, name in enumerate(names)}
    targets, num_lines = {}, 0
    for label, path in paths.items():
        column = targets[label] = np.zeros(len(names), np.int8)
        carried: dict[int, int] = {}
        for file, value in ((path, 1), (unknown_paths.get(label), UNKNOWN)):
            if file is None:
                continue
            lines, found = parse_label_file(read_named_file(source, file), file)
            num_lines += len(lines) + len(found)
            problems += found
            for number, line in lines.items():
                if number in carried:
                    raise InputError(
                        f"{source / file}:{line}: im{number} is also on line {carried[number]} of "
                        f"{path}: remove it from one of the files"
                    )
                if number in rows:
                    column[rows[number]] = value
                else:
                    name = f"im{number}"
                    problems.append(Problem(file, line, "no such image", name, "rejected"))
            carried = lines
    return Labels(targets, problems, num_lines)


def _find_label_files(
    source: Path, files: Sequence[str], folder: str, wanted: Collection[str]
) -> tuple[dict[str, str], list[Problem]]:
    """Return label -> label file for the files of a folder, and a problem for each other file."""
    problems: list[Problem] = []
    paths: dict[str, str] = {}
    for name in sorted(files, key=normalize):
        path = PurePosixPath(name)
        label = normalize(path.stem)
        if path.suffix.lower() != ".txt" or path.parent.name.casefold() != folder:
            problems.append(Problem(name, 0, "not a label file", "ignored", "noted"))
        elif wanted and label not in wanted:
            problems.append(Problem(name, 0, "unused label file", "not in data.labels", "noted"))
        elif label in paths:
            raise InputError(
                f"{paths[label]} and {name} in {source} are label files of the same label: merge "
                "them"
            )
        else:
            paths[label] = name
    return paths, problems
