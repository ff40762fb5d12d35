"""A folder a class: cats/1.jpg carries cats."""

import hashlib
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.decoding.formats import PHOTO_EXTENSIONS
from phototag.importers.collection import (
    EVERY,
    NONE,
    Collection,
    Entry,
    check_label,
    collect,
    count,
    read_source_file,
)

Nested = Literal["all", "outer", "inner"]
SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


def find_classes(names: Sequence[str]) -> dict[str, list[str]]:
    """Find the photos among files, and the folders whose classes they may be.

    What all photos lie in is no class, and neither are train, val and test.

    Returns:
        Photo -> the folders on its way, the outermost first; none for a photo beside them.
    """
    photos = [name for name in names if Path(name).suffix.lower() in PHOTO_EXTENSIONS]
    ways = {name: name.split("/")[:-1] for name in photos}
    levels = zip(*ways.values(), strict=False)
    common = len(list(takewhile(lambda level: len(set(level)) == 1, levels)))
    ways = {name: way[common:] for name, way in ways.items()}
    if all(way and way[0].casefold() in SPLITS for way in ways.values()):
        ways = {name: way[1:] for name, way in ways.items()}
    return ways


def count_classes(ways: dict[str, list[str]]) -> int:
    """Count the folders that may be a class each."""
    return len({folder for way in ways.values() for folder in way})


def read_folders(source: Path, names: Sequence[str], nested: Nested | None) -> Collection:
    """Read photos that lie in a folder a class.

    The same photo, by its bytes, in several folders carries several labels. Of a photo beside the
    folders nothing is known.

    Args:
        source: A folder or zip.
        names: The files in it.
        nested: Which of the folders on a photo's way are classes; None where each has one.

    Raises:
        InputError: There are folders in folders, and the user does not say what they are.
    """
    ways = find_classes(names)
    deep = max(ways, key=lambda name: len(ways[name]), default="")
    if nested is None and deep and len(ways[deep]) > 1:
        way = ways[deep]
        raise InputError(
            f"{source / deep} lies in folders in folders: --nested all gives it the labels "
            f"{' and '.join(way)}, --nested outer {way[0]} alone, --nested inner {way[-1]} alone"
        )
    part = {"outer": slice(1), "inner": slice(-1, None)}.get(nested or "all", slice(None))
    labels = {
        folder: check_label(folder, source)
        for folder in sorted({folder for way in ways.values() for folder in way[part]})
    }
    photos: dict[str, list[str]] = {}
    for name in tqdm(ways, "compare", disable=None):
        digest = hashlib.sha256(read_source_file(source, name)).hexdigest()
        photos.setdefault(digest, []).append(name)
    entries = []
    several = 0
    for same in photos.values():
        carried = frozenset(labels[folder] for name in same for folder in ways[name][part])
        several += len({tuple(ways[name][part]) for name in same}) > 1
        entries.append(Entry(same[0], source, carried, NONE if carried else EVERY))
    notes = []
    if several:
        notes.append(f"{count(several, 'photo')} in several folders: all of their labels")
    if copies := len(ways) - len(photos):
        notes.append(f"{count(copies, 'file')} with the same bytes as another: one photo each")
    if beside := sum(not entry.labels for entry in entries):
        notes.append(f"{count(beside, 'photo')} beside the folders: labels not known")
    what = f"a folder a class: {count(len(ways), 'photo')} in {count(len(labels), 'folder')}"
    return collect(source, what, entries, notes)
