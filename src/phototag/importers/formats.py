"""The import formats, and the choice of the format of a source.

To add a format, write a module with the functions `recognize` and `read`, and add the format to
`FORMATS`, to `SourceFormat` in cli/training.py, to docs/reference/import.md and to the test sources
in tests/e2e/sources.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from phototag.base.errors import InputError
from phototag.dataset.manifest import escape_name
from phototag.decoding.sources import list_files
from phototag.decoding.system_files import describe_system_files, split_system_files
from phototag.importers import coco, folders, imagefolder, labelstudio, numbered, tables
from phototag.importers.photo_files import list_names
from phototag.importers.source import ImportOptions, Source, SourceDataset

LIST_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl")
OUTPUT_TABLE = "sources.csv"  # written by an import beside the photos; it has no labels


@dataclass(frozen=True)
class Format:
    """One import format.

    Attributes:
        description: Name of the format in messages.
        recognize: Function that returns whether a source has this format.
        read: Function that reads a source of this format.
        options: Names of the `ImportOptions` that the format uses.
    """

    description: str
    recognize: Callable[[Source], bool]
    read: Callable[[Source], SourceDataset]
    options: tuple[str, ...]


def _make_table_format(kind: tables.TableKind, options: tuple[str, ...]) -> Format:
    recognize, read = partial(tables.recognize, kind=kind), partial(tables.read, kind=kind)
    return Format(f"a {tables.DESCRIPTIONS[kind]}", recognize, read, options)


FORMATS = {
    "numbered": Format(
        "numbered photos (imN.jpg) with label files",
        numbered.recognize,
        numbered.read,
        ("annotations", "potential"),
    ),
    "folders": Format("one folder per label", folders.recognize, folders.read, ("nested",)),
    "imagefolder": Format(
        "a Hugging Face ImageFolder", imagefolder.recognize, imagefolder.read, ("separator",)
    ),
    "coco": Format("COCO instances", coco.recognize, coco.read, ("images",)),
    "labelstudio": Format(
        "a Label Studio export", labelstudio.recognize, labelstudio.read, ("images",)
    ),
    "list": _make_table_format("list", ("images", "separator")),
    "tags": _make_table_format("tags", ("images", "separator")),
    "one-hot": _make_table_format("one-hot", ("images",)),
}


def read_source(path: Path, options: ImportOptions) -> SourceDataset:
    """Recognise the format of a source and read the source.

    Args:
        path: Folder or zip of photos, or a CSV or JSON file that lists photos.
        options: Options of the import.

    Raises:
        InputError: The source has no known format or several, an option does not apply to the
            format, or the source has an error.
    """
    list_names.cache_clear()
    if options.images is not None and not options.images.is_dir():
        raise InputError(f"--images {options.images} is not a folder")
    system_files: list[str] = []
    if path.suffix.lower() in LIST_SUFFIXES and not path.is_dir():
        if not path.is_file():
            raise InputError(f"{path} is missing: pass an existing CSV or JSON file")
        sources = [Source(path, options)]
    else:
        names, system_files = split_system_files(list_files(path))
        found = [
            Source(path / name, options, is_found=True)
            for name in names
            if name.count("/") <= 1
            and Path(name).suffix.lower() in LIST_SUFFIXES
            and Path(name).name not in (*imagefolder.METADATA, OUTPUT_TABLE)
        ]
        sources = [Source(path, options, names), *(found if path.is_dir() else [])]
    name, source = _choose_reading(path, _find_readings(sources), options)
    for option in ("annotations", "potential", "images", "separator", "nested"):
        if getattr(options, option) and option not in FORMATS[name].options:
            raise InputError(
                f"--{option} does not apply to the format {name} ({FORMATS[name].description}); "
                "omit it"
            )
    dataset = FORMATS[name].read(source)
    notes = [*describe_system_files(system_files), *dataset.notes]
    return replace(dataset, notes=[escape_name(note) for note in notes])


def _find_readings(sources: Sequence[Source]) -> list[tuple[str, Source]]:
    """Return each format and source that fit together."""
    readings: list[tuple[str, Source]] = []
    for source in sources:
        try:
            names = [name for name, format_ in FORMATS.items() if format_.recognize(source)]
        except InputError:
            if not source.is_found:
                raise
            continue  # a file for another purpose, which the user did not pass
        readings += [(name, source) for name in names]
    return readings


def _choose_reading(
    path: Path, readings: list[tuple[str, Source]], options: ImportOptions
) -> tuple[str, Source]:
    """Return the only reading of a source, or the only one that the options allow.

    Raises:
        InputError: There is no reading or several.
    """
    if not readings:
        raise InputError(
            f"{path}: unknown format; expected numbered photos (imN.jpg) with label files "
            "CLASS.txt (--annotations names their folder), two or more folders named after labels, "
            "a CSV with a column 'file', or JSON of COCO or Label Studio; unpack a zip with CSV or "
            "JSON files"
        )
    if options.format:
        wanted = {options.format}
        if options.format in tables.DESCRIPTIONS:
            wanted.add("imagefolder")  # the metadata may be any table
        found = _describe_readings(path, readings)
        readings = [reading for reading in readings if reading[0] in wanted]
        if not readings:
            description = FORMATS[options.format].description
            raise InputError(f"{path} is not {description}: it can be read as {found}")
    found = _describe_readings(path, readings)
    if len(readings) > 1:
        names = dict.fromkeys(name for name, _ in readings)
        how = "choose with " + " or ".join(f"--as {name}" for name in names)
        if options.format or len(names) < len(readings):
            how = "pass one of these files as SOURCE"
        raise InputError(f"{path} can be read as {found}: {how}")
    return readings[0]


def _describe_readings(path: Path, readings: list[tuple[str, Source]]) -> str:
    files = [
        "" if source.path == path else f" ({source.path.relative_to(path)})"
        for _, source in readings
    ]
    return " or as ".join(
        FORMATS[name].description + file for (name, _), file in zip(readings, files, strict=True)
    )
