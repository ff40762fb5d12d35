"""Your own photos, brought into the layout that the pipeline reads.

The source is only read and nothing is ever overwritten: the result is a new zip or folder.
"""

import csv
import io
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.base.files import replace_file
from phototag.intake.labels import image_number, parse_annotation, refuse_names
from phototag.intake.raw import list_files, read_file

STRICT = "_r1"  # MIRFLICKR's suffix of label files that hold only clear cases


@dataclass(frozen=True)
class ImportSummary:
    """What an import brought.

    Attributes:
        destination: The new zip or folder.
        num_images: Photos in it.
        label_counts: Label -> photos that carry it.
        notes: What the user should know, a sentence each.
    """

    destination: Path
    num_images: int
    label_counts: dict[str, int]
    notes: list[str]


class Writer(Protocol):
    """Writes one file of the result under its relative name."""

    def __call__(self, name: str, data: bytes) -> None:
        """Write the file."""


def import_photos(
    source: Path, destination: Path, annotations: Path | None = None, potential: bool = False
) -> ImportSummary:
    """Bring photos and labels into `images/imN.EXT` and `annotations/CLASS.txt`.

    Args:
        source: A folder or zip of imN.jpg files and label files (the course's data or
            MIRFLICKR-25000), or a CSV with the columns file and label (labels separated by
            semicolons) and, if wanted, group.
        destination: A zip (by its suffix) or a folder, which must not exist.
        annotations: A folder or zip with the label files, where the source has none.
        potential: Take MIRFLICKR's CLASS.txt also where there is a CLASS_r1.txt.

    Raises:
        InputError: The destination exists, or the source cannot be understood; the message names
            the file and line.
    """
    if destination.exists():
        raise InputError(f"{destination} exists: remove it, or choose another with --to")
    if source.suffix.lower() == ".csv":
        return _import_csv(source, destination)
    return _import_numbered(source, destination, annotations or source, potential)


def _import_numbered(
    source: Path, destination: Path, annotations: Path, potential: bool
) -> ImportSummary:
    names = [name for name in list_files(source) if not _is_text(name)]
    photos = [name for name in names if image_number(name) is not None]
    if not photos:
        raise InputError(f"{source} holds no photo named imN.jpg, with a number N")
    photos.sort(key=lambda name: image_number(name) or 0)
    for name, reason in refuse_names(photos).items():
        raise InputError(f"{source / name}: {reason}; remove one of them")
    present = {image_number(name) for name in photos}
    notes: list[str] = []
    labels: dict[str, list[int]] = {}
    for label, name in sorted(_choose_label_files(annotations, potential, notes).items()):
        numbers = _read_numbers(annotations, name)
        labels[label] = [number for number in numbers if number in present]
        if missing := len(numbers) - len(labels[label]):
            notes.append(f"{name}: {missing} of {len(numbers)} images are not in {source}")
    files = ((f"im{image_number(name)}{_suffix(name)}", source, name) for name in photos)
    with _open_destination(destination) as write:
        for new_name, folder, name in tqdm(files, "import", len(photos), disable=None):
            write(f"images/{new_name}", _read(folder, name))
        _write_labels(write, labels)
    counts = {label: len(numbers) for label, numbers in labels.items()}
    return ImportSummary(destination, len(photos), counts, notes)


def _choose_label_files(source: Path, potential: bool, notes: list[str]) -> dict[str, str]:
    """Find the label files and note what was left aside; label -> file."""
    found: dict[str, str] = {}
    for name in list_files(source):
        if not _is_text(name):
            continue
        lines = _read(source, name).decode("utf-8-sig", errors="replace").split()
        # An empty file is a label without photos; prose is some README.
        if all(line.isascii() and line.isdigit() for line in lines[:1]):
            stem = PurePosixPath(name).stem
            if stem in found:
                raise InputError(f"{found[stem]} and {name} are label files of one name")
            found[stem] = name
        else:
            notes.append(f"{name} was passed over: its first word is no image number")
    if not found:
        raise InputError(
            f"{source} holds no label file (CLASS.txt); name their place: --annotations"
        )
    strict = {stem for stem in found if stem.endswith(STRICT)}
    if not strict:
        return found
    if potential:
        return {stem: name for stem, name in found.items() if stem not in strict}
    left = sorted(found.keys() - strict)
    notes.append(
        f"took the {len(strict)} strict label files ({STRICT}) and left out {', '.join(left)}; "
        "--potential takes those instead"
    )
    return {stem.removesuffix(STRICT): found[stem] for stem in strict}


def _import_csv(source: Path, destination: Path) -> ImportSummary:
    rows = list(_read_csv(source))
    labels: dict[str, list[int]] = {}
    for number, (_, row_labels, _) in enumerate(rows, start=1):
        for label in row_labels:
            labels.setdefault(label, []).append(number)
    if not labels:
        raise InputError(f"{source} has no label in any row")
    listing = io.StringIO()
    writer = csv.writer(listing, lineterminator="\n")
    writer.writerow(["file", "source", "group"])
    with _open_destination(destination) as write:
        for number, (path, _, group) in enumerate(tqdm(rows, "import", disable=None), start=1):
            name = f"im{number}{_suffix(path.name)}"
            write(f"images/{name}", path.read_bytes())
            writer.writerow([name, os.path.relpath(path, source.parent), group])
        _write_labels(write, labels)
        # The way back from a number to the user's own file.
        write("sources.csv", listing.getvalue().encode())
    counts = {label: len(numbers) for label, numbers in sorted(labels.items())}
    return ImportSummary(destination, len(rows), counts, [])


def _read_csv(source: Path) -> Iterator[tuple[Path, list[str], str]]:
    """Yield each row's photo, labels and group."""
    if not source.is_file():
        raise InputError(f"{source} is missing: give a CSV that exists")
    seen: dict[str, int] = {}
    with source.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        label_column = "labels" if "labels" in columns else "label"
        for column in ("file", label_column):
            if column not in columns:
                raise InputError(f"{source}:1: no column {column!r}; the first line names them")
        for row in reader:
            place = f"{source}:{reader.line_num}"
            name = (row["file"] or "").strip()
            if not name or name in seen:
                what = f"{name} stands on line {seen[name]} already" if name else "no file"
                raise InputError(f"{place}: {what}")
            seen[name] = reader.line_num
            path = source.parent / name
            if not path.is_file():
                raise InputError(f"{place}: {path} is missing")
            labels = sorted(
                {label.strip() for label in (row[label_column] or "").split(";")} - {""}
            )
            for label in labels:
                if label.startswith(".") or set(label) & set('/\\\0:*?"<>|'):
                    raise InputError(f"{place}: the label {label!r} cannot name a file: rename it")
            yield path, labels, (row.get("group") or "").strip()


@contextmanager
def _open_destination(destination: Path) -> Iterator[Writer]:
    """Yield a writer into a temporary zip or folder, which is renamed at the end."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    if destination.suffix.lower() == ".zip":
        with replace_file(destination) as temporary, zipfile.ZipFile(temporary, "x") as archive:
            # One date for all: the same photos make the same zip. JPEGs do not shrink further.
            yield lambda name, data: archive.writestr(zipfile.ZipInfo(name), data)
        return
    folder = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    try:
        (folder / "images").mkdir(parents=True)
        (folder / "annotations").mkdir()
        yield lambda name, data: (folder / name).write_bytes(data) and None
        folder.rename(destination)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_labels(write: Writer, labels: Mapping[str, Iterable[int]]) -> None:
    for label, numbers in sorted(labels.items()):
        text = "".join(f"{number}\n" for number in numbers)
        write(f"annotations/{label}.txt", text.encode())


def _read(source: Path, name: str) -> bytes:
    try:
        return read_file(source, name)
    except InputError as error:
        raise InputError(f"{source / name}: {error}; mend or remove it") from None


def _read_numbers(source: Path, name: str) -> list[int]:
    lines, problems = parse_annotation(_read(source, name), name)
    for problem in problems:
        if problem.line:
            raise InputError(f"{problem.place}: {problem.text}")
    return sorted(lines)


def _is_text(name: str) -> bool:
    return _suffix(name) == ".txt"


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
