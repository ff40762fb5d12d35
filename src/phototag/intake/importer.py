"""Your own photos, brought into the layout that the pipeline reads.

The source is only read and nothing is ever overwritten: the result is a new zip or folder.
"""

import csv
import io
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Protocol

from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.base.files import replace_file
from phototag.data.manifest import check_labels, escape_name
from phototag.intake.decoding import KNOWN, find_extension
from phototag.intake.labels import (
    image_number,
    is_about_photo,
    normalize,
    parse_annotation,
    refuse_names,
)
from phototag.intake.leftovers import describe_leftovers, is_leftover, split_leftovers
from phototag.intake.listing import Listing, decode_text, read_listing
from phototag.intake.raw import list_files, read_file, read_path

STRICT = "_r1"  # MIRFLICKR's suffix of label files that hold only clear cases
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')  # on one system or another
MAX_LABEL_BYTES = 200  # file systems take 255 for the whole name


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
    if source.suffix.lower() in (".csv", ".tsv"):
        summary = _import_csv(source, destination)
    else:
        summary = _import_numbered(source, destination, annotations or source, potential)
    return replace(summary, notes=[escape_name(note) for note in summary.notes])


def _import_numbered(
    source: Path, destination: Path, annotations: Path, potential: bool
) -> ImportSummary:
    names, left = split_leftovers(list_files(source))
    names = [name for name in names if not _is_text(name)]
    photos = [name for name in names if image_number(name) is not None]
    if not photos:
        zips = "".join(f"; give or unpack {name}" for name in names if _suffix(name) == ".zip")
        raise InputError(f"{source} holds no photo named imN.jpg, with a number N{zips}")
    notes = describe_leftovers(left)
    if others := sorted(set(names) - set(photos)):
        why = f"not named imN.jpg, with a number N (such as {others[0]!r})"
        notes.append(_pass_over(len(others), why))
    photos.sort(key=lambda name: image_number(name) or 0)
    for name, reason in refuse_names(photos).items():
        raise InputError(f"{source / name}: {reason}; remove one of them")
    present = {image_number(name) for name in photos}
    labels: dict[str, list[int]] = {}
    for label, name in sorted(_choose_label_files(annotations, potential, notes).items()):
        numbers = _read_numbers(annotations, name)
        labels[label] = [number for number in numbers if number in present]
        if missing := len(numbers) - len(labels[label]):
            notes.append(f"{name}: {missing} of {len(numbers)} images are not in {source}")
    check_labels(labels)
    files = ((f"im{image_number(name)}{_suffix(name)}", source, name) for name in photos)
    with _open_destination(destination) as write:
        for new_name, folder, name in tqdm(files, "import", len(photos), disable=None):
            write(f"images/{new_name}", _read(folder, name))
        _write_labels(write, labels)
    counts = {label: len(numbers) for label, numbers in labels.items()}
    return ImportSummary(destination, len(photos), counts, notes)


def _choose_label_files(source: Path, potential: bool, notes: list[str]) -> dict[str, str]:
    """Find the label files and note what was left aside; label -> file."""
    texts = [name for name in split_leftovers(list_files(source))[0] if _is_text(name)]
    placed = [name for name in texts if _split_path(name)[-2:-1] == ["annotations"]]
    if placed and len(texts) > len(placed):
        notes.append(_pass_over(len(texts) - len(placed), "texts outside annotations/"))
    plain = [name for name in placed or texts if not is_about_photo(name)]
    if about := len(placed or texts) - len(plain):
        notes.append(_pass_over(about, "texts about single photos"))
    found: dict[str, str] = {}
    prose: list[str] = []
    for name in plain:
        words = _read_text(source, name).split()
        # An empty file is a label without photos; prose is some README.
        if all(word.isascii() and word.isdigit() for word in words[:1]):
            stem = normalize(PurePosixPath(name).stem)
            if stem in found:
                raise InputError(f"{found[stem]} and {name} are label files of one name")
            found[stem] = name
        else:
            prose.append(name)
    notes += [f"{name} was passed over: its first word is no image number" for name in prose[:5]]
    if len(prose) > 5:
        notes.append(_pass_over(len(prose) - 5, "texts of the same kind"))
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


def _pass_over(number: int, why: str) -> str:
    return f"{number} {'file was' if number == 1 else 'files were'} passed over: {why}"


def _import_csv(source: Path, destination: Path) -> ImportSummary:
    notes: list[str] = []
    _list_names.cache_clear()
    rows = list(_read_csv(source, notes))
    labels: dict[str, list[int]] = {}
    for number, (_, row_labels, _) in enumerate(rows, start=1):
        for label in row_labels:
            labels.setdefault(label, []).append(number)
    if not labels:
        raise InputError(f"{source} has no label in any row")
    notes += _doubt_labels(labels, {group for _, _, group in rows})
    listing = io.StringIO()
    writer = csv.writer(listing, lineterminator="\n")
    writer.writerow(["file", "source", "group"])
    with _open_destination(destination) as write:
        for number, (path, _, group) in enumerate(tqdm(rows, "import", disable=None), start=1):
            try:
                data = read_path(path)
            except InputError as error:
                raise InputError(f"{path}: {error}; mend it or take it out of {source}") from None
            name = f"im{number}{_find_suffix(path.name, data)}"
            write(f"images/{name}", data)
            writer.writerow([name, os.path.relpath(path, source.parent), group])
        _write_labels(write, labels)
        # The way back from a number to the user's own file.
        write("sources.csv", listing.getvalue().encode("utf-8", "backslashreplace"))
    counts = {label: len(numbers) for label, numbers in sorted(labels.items())}
    return ImportSummary(destination, len(rows), counts, notes)


def _read_csv(source: Path, notes: list[str]) -> Iterator[tuple[Path, list[str], str]]:
    """Yield each row's photo, labels and group, and note what was left aside."""
    if not source.is_file():
        raise InputError(f"{source} is missing: give a CSV that exists")
    listing = read_listing(_read(source.resolve().parent, source.resolve().name), str(source))
    header = f"{source}:{listing.header_line}"
    columns = listing.columns
    label_column = "labels" if "labels" in columns else "label"
    for column in ("file", label_column):
        if column not in columns:
            raise InputError(f"{header}: no column {column!r}; the first line names them")
    if "label" in columns and "labels" in columns:
        raise InputError(f"{header}: the columns 'label' and 'labels' both; keep one")
    if others := [column for column in columns if column not in ("file", label_column, "group")]:
        notes.append(f"columns passed over: {', '.join(others)}")
    seen: dict[str, int] = {}
    for row in listing.rows:
        place = f"{source}:{row.line}"
        name = row.cells.get("file", "")
        if row.extra:
            labels = [value for column, value in row.cells.items() if column != "file"]
            raise InputError(
                f"{place}: {len(row.cells) + len(row.extra)} cells where the first line names "
                f"{len(columns)} columns; labels of one photo stand in one cell, separated by "
                "semicolons: " + _write_row([name, ";".join([*labels, *row.extra])], listing)
            )
        if label_column not in row.cells:
            raise InputError(
                f"{place}: no cell of the column {label_column!r}; a photo without labels is "
                f"written {_write_row([name, ''], listing)}"
            )
        if not name:
            raise InputError(f"{place}: no file")
        path = _locate(source.parent, name)
        first = seen.setdefault(os.path.normpath(path), row.line)
        if first != row.line:
            raise InputError(f"{place}: {name} stands on line {first} already")
        if not os.path.isfile(path):  # noqa: PTH113
            what = "no file" if os.path.lexists(path) else "missing"
            raise InputError(f"{place}: {path} is {what}")
        yield path, _split_labels(row.cells[label_column], place), row.cells.get("group", "")


def _split_labels(cell: str, place: str) -> list[str]:
    labels = sorted({label.strip() for label in cell.split(";")} - {""})
    for label in labels:
        file = f"{label}.txt"
        too_long = len(label.encode()) > MAX_LABEL_BYTES
        passed_over = is_leftover(file) or is_about_photo(file)
        if _FORBIDDEN.search(label) or too_long or passed_over:
            raise InputError(f"{place}: the label {label[:40]!r} cannot name a file: rename it")
        try:
            check_labels([label])
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
    return labels


def _doubt_labels(labels: Iterable[str], groups: set[str]) -> list[str]:
    """Say what may be no label, or no group, in the user's mind."""
    doubts = [
        f"the label {label!r} holds a comma; labels of one photo are separated by semicolons"
        for label in labels
        if "," in label
    ]
    doubts += [
        f"{group!r} is a label and a group as well; labels of one photo stand in one cell, "
        "separated by semicolons"
        for group in sorted(groups & set(labels))
    ]
    first: dict[str, str] = {}
    for label in labels:
        if (other := first.setdefault(label.casefold(), label)) != label:
            doubts.append(f"the labels {other!r} and {label!r} differ in capitals only")
    return doubts


def _locate(folder: Path, name: str) -> Path:
    """Return where a file lies that a list names.

    The list may have come from Windows, with backslashes, or the files from macOS, in decomposed
    Unicode.
    """
    path = folder / name
    if os.path.lexists(path):
        return path
    path = folder
    for part in Path(name.replace("\\", "/")).parts:
        as_written = path / part
        found = part if os.path.lexists(as_written) else _list_names(path).get(normalize(part))
        path = path / (found or part)
    return path


@lru_cache(maxsize=64)
def _list_names(folder: Path) -> dict[str, str]:
    """Return the names in a folder, in NFC -> as they are; none where it cannot be read."""
    try:
        return {normalize(name): name for name in os.listdir(folder)}  # noqa: PTH208
    except (OSError, ValueError):
        return {}


def _write_row(cells: list[str], listing: Listing) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=listing.separator, lineterminator="").writerow(cells)
    return text.getvalue()


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


def _read_text(source: Path, name: str) -> str:
    data = _read(source, name)
    try:
        return decode_text(data, name)
    except InputError:  # prose in some other encoding; numbers are the same in all
        return data.decode("utf-8", errors="replace")


def _read_numbers(source: Path, name: str) -> list[int]:
    lines, problems = parse_annotation(_read_text(source, name).encode(), name)
    for problem in problems:
        if problem.line:
            raise InputError(f"{problem.place}: {problem.text}")
    return sorted(lines)


def _is_text(name: str) -> bool:
    return _suffix(name) == ".txt"


def _split_path(name: str) -> list[str]:
    return name.casefold().split("/")


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _find_suffix(name: str, data: bytes) -> str:
    """Return a photo's suffix; a missing or odd one (.jpg?size=2) follows from the content."""
    suffix = _suffix(name)
    if suffix in KNOWN:
        return suffix
    plain = re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) and not is_leftover(f"im1{suffix}")
    return find_extension(data) or (suffix if plain else ".bin")
