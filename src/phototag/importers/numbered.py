"""Photos called imN.jpg, and label files CLASS.txt that list the numbers of photos.

This is the layout of the course, of MIRFLICKR-25000, and of the result of `phototag import`.
"""

import codecs
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from phototag.base.errors import InputError
from phototag.dataset.manifest import check_labels
from phototag.decoding.sources import list_files, read_named_file
from phototag.decoding.system_files import split_system_files
from phototag.importers.source import Source, SourceDataset, SourcePhoto
from phototag.verification.labels import (
    find_invalid_names,
    image_number,
    normalize,
    parse_label_file,
)

# MIRFLICKR has text files with the metadata of single photos; they may begin with a number.
_METADATA = re.compile(r"(.*/)?(meta/.*|(tags|exif|license)[0-9]+\.txt)", re.IGNORECASE)
STRICT = "_r1"  # MIRFLICKR's suffix of label files that list only clear cases


def recognize(source: Source) -> bool:
    """Return whether a source holds numbered photos, and has label files."""
    names = source.names or ()
    if all(image_number(name) is None for name in names):
        return False
    texts = [name for name in names if _is_text(name) and not _is_photo_metadata(name)]
    given = source.options.annotations is not None
    return given or any(_is_label_file(source.path, name) for name in texts)


def read(source: Source) -> SourceDataset:
    """Read numbered photos and their label files.

    Raises:
        InputError: Two photos have the same number, there is no label file, or a line of a label
            file is not a number.
    """
    names = [name for name in source.names or () if not _is_text(name)]
    photos = [name for name in names if image_number(name) is not None]
    notes: list[str] = []
    _note_skipped(notes, "files not named imN.jpg", set(names) - set(photos))
    photos.sort(key=lambda name: image_number(name) or 0)
    for name, reason in find_invalid_names(photos).items():
        raise InputError(f"{source.path / name}: {reason}; remove one of them")
    annotations = source.options.annotations or source.path
    files, unknown_files = _find_label_files(annotations, source.options.potential, notes)
    check_labels(sorted(files))
    numbers = [image_number(name) for name in photos]
    carried = _read_label_files(annotations, files, numbers, notes)
    unknown = _read_label_files(annotations, unknown_files, numbers, notes)
    dataset = [
        SourcePhoto(name, source.path, carried[row], unknown[row], number=numbers[row])
        for row, name in enumerate(photos)
    ]
    description = f"numbered photos: {len(photos)}, label files: {len(files)}"
    return SourceDataset(description, dataset, sorted(files), notes)


def _find_label_files(
    source: Path, potential: bool, notes: list[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the label files and the files of unknown labels, by label; note skipped files."""
    texts = {name for name in split_system_files(list_files(source))[0] if _is_text(name)}
    annotations = _list_in_folder(texts, "annotations")
    unknown = _list_in_folder(texts, "unknown") if annotations else set()
    label_files = annotations or texts
    _note_skipped(notes, "texts outside of annotations/", texts - label_files - unknown)
    about_photos = {name for name in label_files if _is_photo_metadata(name)}
    _note_skipped(notes, "texts about single photos", about_photos)
    prose = {name for name in label_files - about_photos if not _is_label_file(source, name)}
    _note_skipped(notes, "texts that do not start with an image number", prose)
    found: dict[str, str] = {}
    for name in sorted(label_files - about_photos - prose):
        if (first := found.setdefault(_label_of(name), name)) != name:
            raise InputError(f"{source}: {first} and {name} have the same label; join them")
    if not found:
        raise InputError(
            f"{source} contains no label file (CLASS.txt): pass its folder with --annotations"
        )
    strict = {label for label in found if label.endswith(STRICT)}
    others = sorted(found.keys() - strict)
    if strict and not potential:
        notes.append(
            f"read the strict label files (CLASS{STRICT}.txt): {len(strict)}; skipped: "
            f"{', '.join(others)} (--potential reads those instead)"
        )
        return {label.removesuffix(STRICT): found[label] for label in strict}, {}
    return {label: found[label] for label in others}, {_label_of(name): name for name in unknown}


def _list_in_folder(names: Iterable[str], folder: str) -> set[str]:
    """Return the files that are directly in a folder of this name, in any case."""
    return {name for name in names if PurePosixPath(name.casefold()).parent.name == folder}


def _note_skipped(notes: list[str], what: str, names: Iterable[str]) -> None:
    if listed := sorted(names):
        notes.append(f"skipped {what}: {len(listed)}, such as {listed[0]!r}")


def _read_label_files(
    source: Path, files: dict[str, str], numbers: list[int | None], notes: list[str]
) -> list[frozenset[str]]:
    """Return the labels of each photo number; note listed numbers without a photo."""
    labels: dict[int | None, set[str]] = {number: set() for number in numbers}
    for label, name in sorted(files.items()):
        lines, problems = parse_label_file(_read_text(source, name).encode(), name)
        for problem in problems:
            if problem.line:
                raise InputError(f"{source / problem.place}: {problem.text}; fix the line")
        for number in lines.keys() & labels.keys():
            labels[number].add(label)
        if missing := len(lines.keys() - labels.keys()):
            notes.append(f"{name}: {missing} of {len(lines)} photos are not in the source")
    return [frozenset(labels[number]) for number in numbers]


def _is_photo_metadata(name: str) -> bool:
    """Return whether a text file describes one photo, such as im1.txt or meta/tags/tags1.txt."""
    return _METADATA.fullmatch(name) is not None or image_number(name) is not None


def _is_label_file(source: Path, name: str) -> bool:
    """Return whether a text is empty (a label without photos) or starts with a number."""
    words = _read_text(source, name).split(maxsplit=1)
    return all(word.isascii() and word.isdigit() for word in words[:1])


def _read_text(source: Path, name: str) -> str:
    data = read_named_file(source, name)
    is_utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as PowerShell writes
    return data.decode("utf-16" if is_utf16 else "utf-8", errors="replace")


def _is_text(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() == ".txt"


def _label_of(name: str) -> str:
    return normalize(PurePosixPath(name).stem)
