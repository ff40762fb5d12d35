"""The import formats, and the detection of a source's format.

To add a format, write a module with the functions `recognize` and `read`. Then add the format to
`FORMATS`, to `SourceFormat` in cli/training.py, to docs/reference/import.md and to the test sources
in tests/e2e/sources.py.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from phototag.base.errors import InputError, escape_control
from phototag.decoding.sources import list_files
from phototag.decoding.system_files import describe_system_files, split_system_files
from phototag.importers import coco, folders, keywords, labelstudio, numbered, tables
from phototag.importers.source import ImportOptions, Source, SourceDataset, SourcePhoto
from phototag.importers.table_files import TABLE_SUFFIXES

LIST_SUFFIXES = (*TABLE_SUFFIXES, ".json")
NUM_TRIED = 20  # number of photos in label folders that are searched for keywords


@dataclass(frozen=True)
class Format:
    """An import format, with the names of the `ImportOptions` that apply to it."""

    description: str
    recognize: Callable[[Source], bool]
    read: Callable[[Source], SourceDataset]
    options: tuple[str, ...] = ()


FORMATS = {
    "numbered": Format(
        "numbered photos (images/imN.jpg) with label files", numbered.recognize, numbered.read
    ),
    "folders": Format("one folder per label", folders.recognize, folders.read, ("folder",)),
    "imagefolder": Format(
        "a Hugging Face ImageFolder", Source.is_metadata, tables.read, ("images", "separator")
    ),
    "coco": Format("COCO instances", coco.recognize, coco.read, ("images",)),
    "labelstudio": Format(
        "a Label Studio export", labelstudio.recognize, labelstudio.read, ("images",)
    ),
    "list": Format(
        "a CSV of labels",
        partial(tables.recognize, kind="list"),
        partial(tables.read, kind="list"),
        ("images", "separator"),
    ),
    "one-hot": Format(
        "a one-hot CSV",
        partial(tables.recognize, kind="one-hot"),
        partial(tables.read, kind="one-hot"),
        ("images",),
    ),
    "keywords": Format(
        "keywords of the photos", keywords.recognize, keywords.read, ("missing", "min_photos")
    ),
}
Reading = tuple[str, Source]  # a way to read a source: name of the format, and source


def read_source(path: Path, options: ImportOptions) -> SourceDataset:
    """Detect the format of a folder, zip, CSV or JSON file, and read its photos and labels.

    Raises:
        InputError: The format is unknown or ambiguous, an option does not apply to the format, or
            the content of the source is invalid.
    """
    if options.images is not None and not options.images.is_dir():
        raise InputError(f"--images {options.images} is not a folder")
    sources, system_files = [Source(path, options)], list[str]()
    if path.is_dir() or path.suffix.lower() not in LIST_SUFFIXES:
        names, system_files = split_system_files(list_files(path))
        sources = [Source(path, options, names)]
        if path.is_dir():
            sources += [Source(path / name, options) for name in names if _may_be_list(name)]
    readings, errors = list[Reading](), list[InputError]()
    for source in sources:
        try:
            readings += [
                (name, source)
                for name, each in FORMATS.items()
                if name != "keywords" and each.recognize(source)
            ]
        except InputError as error:
            errors.append(error)
    # Photos in any format may have keywords, so keywords are the last choice unless requested.
    is_last = not readings and not errors
    if (is_last or options.format == "keywords") and keywords.recognize(sources[0]):
        readings.append(("keywords", sources[0]))
    if errors and not readings:
        raise errors[0]
    has_photos = options.known_labels is not None and sources[0].split_names[0]
    if has_photos and not any(options.format in (None, name) for name, _ in readings):
        readings.append(("folders", sources[0]))  # a dataset may be extended by unlabelled photos
    if not readings:
        found = "; ".join(["unknown format", *sources[0].describe_others()])
        raise InputError(
            f"{path}: {found}; expected images/imN.jpg with annotations/CLASS.txt, "
            "two or more folders named after labels, a CSV with a column 'file', a JSON file of "
            "COCO or Label Studio (not JSON-MIN), or photos with keywords; unpack a zip that "
            "contains a CSV or JSON first"
        )
    name, chosen = _choose_readings(path, readings, options.format)
    for option in ("images", "separator", "folder", "missing", "min_photos"):
        if getattr(options, option) and option not in FORMATS[name].options:
            raise InputError(
                f"--{option.replace('_', '-')} does not apply to the format {name} "
                f"({FORMATS[name].description}); omit it"
            )
    parts = [FORMATS[name].read(source) for source in chosen]
    # Numbered photos may have empty label files, so labels that no photo has are kept.
    dataset = parts[0] if name == "numbered" else _join(path, parts, options.known_labels)
    if name == "keywords":  # sidecars are read
        system_files = [file for file in system_files if not file.lower().endswith(".xmp")]
    notes = [*describe_system_files(system_files), *dataset.notes]
    if name == "folders" and keywords.recognize(sources[0], NUM_TRIED):
        notes.append("the photos have keywords: to read these as labels, pass --as keywords")
    if path.is_dir() and chosen[0].names is None:
        listed = {os.path.normpath(photo.path) for photo in dataset.photos}
        photos = sources[0].split_names[0]
        if left := [file for file in photos if os.path.normpath(path / file) not in listed]:
            notes.append(f"skipped photos that are not listed: {len(left)}, such as {left[0]}")
    return replace(dataset, notes=[escape_control(note) for note in notes])


def _join(
    path: Path, parts: Sequence[SourceDataset], known: frozenset[str] | None
) -> SourceDataset:
    """Join the datasets of several sources; drop labels that are unused and not `known`."""
    carried = frozenset(label for part in parts for photo in part.photos for label in photo.labels)
    if not carried and known is None:
        raise InputError(f"{path}: no photo has a label: label at least one photo")
    notes = [note for part in parts for note in part.notes]
    defined = {label for part in parts for label in part.labels}
    carried |= defined & (known or frozenset())
    if unused := sorted(defined - carried):
        notes.append(f"skipped labels that no photo has: {', '.join(unused)}")
    photos: dict[str, SourcePhoto] = {}
    for part in parts:
        # Labels that are not in the dataset's own list of labels are unknown.
        other = carried.difference(part.labels) if part.labels and len(parts) > 1 else set()
        for photo in part.photos:
            unknown = carried if photo.unknown is None else (photo.unknown & carried) | other
            # Roboflow writes augmented copies of a photo, such as a_jpg.rf.1f3c.jpg.
            group = photo.group or photo.path.name.rpartition(".rf.")[0]
            new = replace(photo, unknown=unknown - photo.labels, group=group)
            old = photos.setdefault(os.path.normpath(photo.path), new)
            if (old.labels, old.unknown, old.group) != (new.labels, new.unknown, new.group):
                raise InputError(
                    f"{new.place}: {new.path} is already listed in {old.place}, with other labels "
                    "or another group; write all labels of a photo in one entry"
                )
    if repeated := sum(len(part.photos) for part in parts) - len(photos):
        notes.append(f"skipped entries that repeat another entry with the same labels: {repeated}")
    description = "; ".join(part.description for part in parts)
    return SourceDataset(
        description, list(photos.values()), sorted(carried), [*dict.fromkeys(notes)]
    )


def _may_be_list(name: str) -> bool:
    """Return whether a file in a folder may be a table or JSON file that lists the photos."""
    file = Path(name)
    is_near = name.count("/") <= 1 or file.stem == "metadata"
    return is_near and file.suffix.lower() in LIST_SUFFIXES


def _choose_readings(
    path: Path, readings: Sequence[Reading], wanted: str | None
) -> tuple[str, list[Source]]:
    """Return the name of the format (`wanted` or the only one) and the sources in this format."""
    found = " or as ".join(_describe(path, *reading) for reading in readings)
    chosen = [reading for reading in readings if wanted in (None, reading[0])]
    if wanted and not chosen:
        raise InputError(f"{path} is not {FORMATS[wanted].description}: it can be read as {found}")
    patterns: dict[str, set[str]] = {}
    for name, source in chosen:
        # Lists of splits differ only in the name of the split: train/a.json, test/a.json. An
        # ImageFolder may have a metadata file in any folder.
        pattern = folders.SPLIT.sub("*", os.path.relpath(source.path, path))
        patterns.setdefault(name, set()).add("" if name == "imagefolder" else pattern)
    if len(patterns) > 1 or len(patterns[chosen[0][0]]) > 1:
        how = "choose with " + " or ".join(f"--as {name}" for name in patterns)
        if any(len(each) > 1 for each in patterns.values()):
            how = "pass one of these files as SOURCE"
        raise InputError(f"{path} can be read as {found}: {how}")
    return chosen[0][0], [source for _, source in chosen]


def _describe(path: Path, name: str, source: Source) -> str:
    file = "" if source.path == path else f" ({source.path.relative_to(path)})"
    return FORMATS[name].description + file
