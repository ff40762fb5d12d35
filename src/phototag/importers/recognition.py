"""What a source is, by its content; where it may be two things, the user decides."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from phototag.base.errors import InputError
from phototag.decoding.sources import list_files
from phototag.decoding.system_files import describe_system_files, split_system_files
from phototag.importers.coco import read_coco
from phototag.importers.collection import (
    Collection,
    collect,
    count,
    list_names,
    read_source_file,
)
from phototag.importers.folders import Nested, count_classes, find_classes, read_folders
from phototag.importers.imagefolder import METADATA, read_imagefolder
from phototag.importers.labelstudio import read_labelstudio
from phototag.importers.numbered import has_label_files, read_numbered
from phototag.importers.tables import NAMES, Kind, choose_kind, read_table, recognize_table
from phototag.verification.labels import image_number
from phototag.verification.listing import decode_text, read_listing

Format = Literal["numbered", "folders", "imagefolder", "coco", "labelstudio", Kind]
WORDS: dict[Format, str] = {
    "numbered": "numbered photos (imN.jpg) with label files",
    "folders": "a folder a class",
    "imagefolder": "an imagefolder",
    "coco": "COCO instances",
    "labelstudio": "a Label Studio export",
    "list": f"a {NAMES['list']}",
    "tags": f"a {NAMES['tags']}",
    "one-hot": f"a {NAMES['one-hot']}",
}
TABLES: tuple[Kind, ...] = ("list", "tags", "one-hot")
# What each hint is of use for.
USES: dict[str, tuple[Format, ...]] = {
    "annotations": ("numbered",),
    "potential": ("numbered",),
    "nested": ("folders",),
    "images": ("coco", "labelstudio", *TABLES),
    "separator": ("list", "tags", "imagefolder"),
}
LISTS = (".csv", ".tsv", ".json", ".jsonl")
OURS = "sources.csv"  # that an import leaves beside its photos
Way = tuple[Format, Path]


@dataclass(frozen=True)
class Hints:
    """What the user says of a source; None and False leave it to the content.

    Attributes:
        format: What it is.
        annotations: Where the label files of numbered photos are.
        potential: Take MIRFLICKR's less strict ones.
        images: The folder that a list's names start from.
        separator: Between labels of one cell.
        nested: Which folders on a photo's way are classes.
    """

    format: Format | None = None
    annotations: Path | None = None
    potential: bool = False
    images: Path | None = None
    separator: str | None = None
    nested: Nested | None = None


def read_collection(source: Path, hints: Hints) -> Collection:
    """Recognise a source and read it.

    Args:
        source: A list of photos (CSV, JSON), or a folder or zip that holds them.
        hints: What the user says of it.

    Raises:
        InputError: It is nothing known, may be two things, or is wrong; the message names what
            decides, or the file and its line or key.
    """
    list_names.cache_clear()
    if hints.images is not None and not hints.images.is_dir():
        raise InputError(f"--images {hints.images} is no folder")
    if source.suffix.lower() in LISTS and not source.is_dir():
        return _read_list(source, hints)
    names, left = split_system_files(list_files(source))
    kind, path = _choose_way(source, names, hints)
    if path != source:
        found = _read_list(path, hints)
    else:
        _check_hints(hints, kind)
        if kind == "numbered":
            found = read_numbered(source, names, hints.annotations or source, hints.potential)
        elif kind == "folders":
            found = read_folders(source, names, hints.nested)
        else:
            table = hints.format if hints.format in TABLES else None
            metadata = _find_metadata(names)
            found = read_imagefolder(source, metadata, names, table, hints.separator)
    return replace(found, notes=[*describe_system_files(left), *found.notes])


def _read_list(source: Path, hints: Hints) -> Collection:
    if not source.is_file():
        raise InputError(f"{source} is missing: give a CSV or JSON that exists")
    real = source.resolve()
    if source.suffix.lower() == ".jsonl":
        kind = hints.format if hints.format in TABLES else None
        _check_hints(hints, "imagefolder")
        return read_imagefolder(source.parent, [source.name], [], kind, hints.separator)
    data = read_source_file(real.parent, real.name)
    text = decode_text(data, str(source))
    if known := _recognize_json(text):
        if hints.format and hints.format != known:
            raise InputError(f"{source} is not {WORDS[hints.format]}, but {WORDS[known]}")
        _check_hints(hints, known)
        read = read_coco if known == "coco" else read_labelstudio
        return read(source, text, hints.images)
    if source.suffix.lower() == ".json":
        raise InputError(f"{source}: neither an object (COCO) nor a list (Label Studio) in JSON")
    if hints.format and hints.format not in TABLES:
        raise InputError(f"{source} is not {WORDS[hints.format]}, but a CSV")
    listing = read_listing(data, str(source))
    wanted = hints.format if hints.format in TABLES else None
    kind = choose_kind(recognize_table(listing, str(source)), wanted, str(source))
    _check_hints(hints, kind)
    folder = hints.images or source.parent
    entries, notes, offered = read_table(source, listing, kind, folder, hints.separator)
    return collect(source, f"{NAMES[kind]}: {count(len(entries), 'row')}", entries, notes, offered)


def _recognize_json(text: str) -> Literal["coco", "labelstudio"] | None:
    """Tell COCO's object from Label Studio's list; None where it is no JSON."""
    first = text[:1000].lstrip("\ufeff \t\r\n")[:1]
    return "coco" if first == "{" else "labelstudio" if first == "[" else None


def _choose_way(source: Path, names: Sequence[str], hints: Hints) -> Way:
    """Choose the one way in which a folder or zip can be read."""
    ways = _find_ways(source, names, hints)
    if not ways:
        raise InputError(_describe_nothing(source, names))
    if hints.format:
        wanted = {hints.format, "imagefolder"} if hints.format in TABLES else {hints.format}
        if not any(kind in wanted for kind, _ in ways):
            found = " or ".join(_describe_way(way, source) for way in ways)
            raise InputError(f"{source} is not {WORDS[hints.format]}; it may be {found}")
        ways = [way for way in ways if way[0] in wanted]
    if len(ways) > 1:
        told = " or as ".join(_describe_way(way, source) for way in ways)
        kinds = dict.fromkeys(kind for kind, _ in ways)
        decide = " or ".join(f"--as {kind}" for kind in kinds)
        if len(kinds) < len(ways):
            decide = "give the file that counts as SOURCE"
        raise InputError(f"{source} can be read as {told}: say which: {decide}")
    return ways[0]


def _find_ways(source: Path, names: Sequence[str], hints: Hints) -> list[Way]:
    """Find the ways in which a folder or zip can be read; the path is the list in it, if any."""
    ways: list[Way] = []
    numbered = [name for name in names if image_number(name) is not None]
    labelled = hints.annotations is not None or (numbered and has_label_files(source, names))
    if numbered and labelled:
        ways.append(("numbered", source))
    classes = find_classes(names)
    if count_classes(classes) > 1 and not (ways and set(classes) <= set(numbered)):
        ways.append(("folders", source))
    if source.is_dir() and _find_metadata(names):
        ways.append(("imagefolder", source))
    if source.is_dir():
        for name in names:
            if name.count("/") <= 1 and (kind := _recognize_file(source, name)):
                ways.append((kind, source / name))
    return ways


def _find_metadata(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.rpartition("/")[2] in METADATA]


def _recognize_file(source: Path, name: str) -> Format | None:
    """Tell whether a file in a folder is a list of photos; there may be others."""
    path = Path(name)
    if path.suffix.lower() not in LISTS or path.name in (*METADATA, OURS):
        return None
    try:
        data = read_source_file(source, name)
        text = decode_text(data, name)
        if known := _recognize_json(text):
            keys = ("images", "categories") if known == "coco" else ("data", "annotations")
            return known if all(f'"{key}"' in text for key in keys) else None
        return recognize_table(read_listing(data, name), name)[0]
    except InputError:
        return None


def _describe_way(way: Way, source: Path) -> str:
    kind, path = way
    return WORDS[kind] if path == source else f"{WORDS[kind]} ({path.relative_to(source)})"


def _describe_nothing(source: Path, names: Sequence[str]) -> str:
    if any(image_number(name) is not None for name in names):
        return f"{source} holds no label file (CLASS.txt); name their place: --annotations"
    packed = "" if source.is_dir() else next(
        (f"; unpack it first, for {name}" for name in names if Path(name).suffix in LISTS), ""
    )  # fmt: skip
    zips = "".join(f"; give or unpack {name}" for name in names if name.lower().endswith(".zip"))
    return (
        f"{source} holds no photo named imN.jpg with label files, no photos in a folder a class, "
        f"and no list of photos (CSV, COCO, Label Studio, metadata.csv){packed}{zips}"
    )


def _check_hints(hints: Hints, kind: Format) -> None:
    """Make sure that what the user says has a use.

    Raises:
        InputError: It has none.
    """
    for name, kinds in USES.items():
        if getattr(hints, name) and kind not in kinds:
            raise InputError(f"--{name} says nothing of {WORDS[kind]}: leave it out")
