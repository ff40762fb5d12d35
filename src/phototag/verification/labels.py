"""Read label files, one per class, which list one image number per line.

`annotations/CLASS.txt` lists the photos that carry the label CLASS. The optional
`unknown/CLASS.txt` lists the photos whose target is unknown. All other photos lack the label.
"""

import difflib
import re
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

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

Fill = Callable[[str, Mapping[str, np.ndarray]], np.ndarray | int]


@dataclass(frozen=True)
class Labels:
    """The content of all label files of a dataset.

    Attributes:
        targets: Label -> 1, 0 or `UNKNOWN` for each photo, int8 [num_photos]. Labels are sorted by
            name and are in Unicode's composed form (NFC).
        problems: Problems found in the label files.
        num_lines: Number of non-blank lines in all label files together.
    """

    targets: dict[str, np.ndarray]
    problems: list[Problem]
    num_lines: int


class LabelFiles(NamedTuple):
    """The label files of an import, and the photos to which they refer.

    Attributes:
        annotations: Paths of the files in the folder `annotations`.
        names: Paths of the photos; photos without a number in the name carry no label.
        unknown: Paths of the files in the folder `unknown`.
    """

    annotations: Sequence[str]
    names: Sequence[str]
    unknown: Sequence[str] = ()


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


def fill_unknown(label: str, targets: Mapping[str, np.ndarray]) -> int:
    """Return the target of a label for an import without this label: unknown."""
    return UNKNOWN


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


def read_labels(
    source: Path,
    files: Sequence[str],
    names: Sequence[str],
    expected: Sequence[str] = (),
    unknown: Sequence[str] = (),
) -> Labels:
    """Read the label files of one dataset and return the targets of all photos.

    Args:
        source: Folder or zip of the dataset.
        files: Paths of the files in the source's folder `annotations`.
        names: Paths of the photos; photos without a number in the name carry no label.
        expected: Labels to read; omit to read all label files.
        unknown: Paths of the files in the source's folder `unknown`.

    Raises:
        InputError: A label file is missing or unreadable, two files are label files of the same
            label, or a photo is listed in both the `annotations` and the `unknown` file of a label.
    """
    return read_all_labels(source, [LabelFiles(files, names, unknown)], expected)


def read_all_labels(
    source: Path,
    parts: Sequence[LabelFiles],
    expected: Sequence[str] = (),
    fill: Fill = fill_unknown,
) -> Labels:
    """Read the label files of each import, and return the targets of the photos of all imports.

    Args:
        source: Folder or zip of the dataset, to which the paths of the files are relative.
        parts: Label files and photos of each import.
        expected: Labels to read; omit to read all label files.
        fill: Function that receives a label without a label file in an import, and the targets of
            this import; it returns the targets of the label for the photos of this import.

    Raises:
        InputError: See `read_labels`.
    """
    wanted = {normalize(label) for label in expected}
    found = [_read_part(source, part, wanted) for part in parts]
    labels = dict.fromkeys(label for part in found for label in part.targets)
    if missing := [label for label in expected if normalize(label) not in labels]:
        listed = [list_labels(source, part.annotations) for part in parts]
        existing = sorted({label for labels in listed for label in labels})
        names = textwrap.shorten(", ".join(existing), 1000) or "(none)"
        raise InputError(
            f"data.labels: {source} has no annotations/{missing[0]}.txt: add it, or choose from "
            f"the labels {names}{suggest(missing[0], existing)}"
        )
    if not labels:
        raise InputError(f"{source} has no label files: add annotations/CLASS.txt")
    targets = {
        label: np.concatenate(
            [
                (
                    part.targets[label]
                    if label in part.targets
                    else np.full(len(each.names), fill(label, part.targets), np.int8)
                )
                for each, part in zip(parts, found, strict=True)
            ]
        )
        for label in (labels if len(parts) == 1 else sorted(labels))
    }
    problems = [problem for part in found for problem in part.problems]
    return Labels(targets, problems, sum(part.num_lines for part in found))


def list_labels(source: Path, files: Sequence[str]) -> list[str]:
    """Return the labels of the files in a folder `annotations`; see `read_labels`."""
    return list(_find_label_files(source, files, "annotations", set())[0])


def _read_part(source: Path, part: LabelFiles, wanted: set[str]) -> Labels:
    """Read the label files of one import."""
    paths, problems = _find_label_files(source, part.annotations, "annotations", wanted)
    unknown_paths, more = _find_label_files(source, part.unknown, "unknown", wanted)
    problems += more
    if alone := sorted(unknown_paths.keys() - paths.keys()):
        raise InputError(
            f"{source / unknown_paths[alone[0]]} requires annotations/{alone[0]}.txt: add it "
            "(empty if no photo carries the label)"
        )
    rows = {image_number(name): row for row, name in enumerate(part.names)}
    targets, num_lines = {}, 0
    for label, path in paths.items():
        column = targets[label] = np.zeros(len(part.names), np.int8)
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
    source: Path, files: Sequence[str], folder: str, wanted: set[str]
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
