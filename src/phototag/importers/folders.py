"""One folder per label: cats/1.jpg carries the label cats."""

import hashlib
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.decoding.formats import PHOTO_EXTENSIONS
from phototag.decoding.sources import read_named_file
from phototag.importers import numbered
from phototag.importers.source import Source, SourceDataset, SourcePhoto, check_label
from phototag.verification.labels import image_number

SPLITS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


def recognize(source: Source) -> bool:
    """Return whether the photos are in at least two folders, and are not numbered photos."""
    folders = _find_folders(source.names or ())
    if len({folder for path in folders.values() for folder in path}) < 2:
        return False
    all_numbered = all(image_number(name) is not None for name in folders)
    return not (all_numbered and numbered.recognize(source))


def read(source: Source) -> SourceDataset:
    """Read photos that are in one folder per label.

    A photo that is in several folders (compared by its bytes) carries several labels. All labels
    of a photo outside of the folders are unknown.

    Raises:
        InputError: Folders are nested and --nested does not select the labels.
    """
    folders, nested = _find_folders(source.names or ()), source.options.nested
    deepest = max(folders, key=lambda name: len(folders[name]), default="")
    if nested is None and deepest and len(folders[deepest]) > 1:
        path = folders[deepest]
        raise InputError(
            f"{source.path / deepest} is in nested folders: choose its labels with --nested all "
            f"({' and '.join(path)}), --nested outer ({path[0]}) or --nested inner ({path[-1]})"
        )
    part = {"outer": slice(1), "inner": slice(-1, None)}.get(nested or "all", slice(None))
    labels = {
        folder: check_label(folder, source.path)
        for folder in sorted({folder for path in folders.values() for folder in path[part]})
    }
    same_bytes: dict[str, list[str]] = {}
    for name in tqdm(folders, "compare", disable=None):
        digest = hashlib.sha256(read_named_file(source.path, name)).hexdigest()
        same_bytes.setdefault(digest, []).append(name)
    photos = []
    several = 0
    for names in same_bytes.values():
        carried = frozenset(labels[folder] for name in names for folder in folders[name][part])
        several += len({tuple(folders[name][part]) for name in names}) > 1
        photos.append(SourcePhoto(names[0], source.path, carried, frozenset() if carried else None))
    notes = []
    if several:
        notes.append(f"photos in several folders, which get the labels of all of them: {several}")
    if copies := len(folders) - len(same_bytes):
        notes.append(f"skipped files with the same bytes as another file: {copies}")
    if outside := sum(not photo.labels for photo in photos):
        notes.append(f"photos outside of the folders, whose labels are unknown: {outside}")
    description = f"one folder per label: {len(folders)} photos in {len(labels)} folders"
    return SourceDataset.collect(source.path, description, photos, notes)


def _find_folders(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the folders on the path of each photo, the outermost first.

    A folder that contains all photos is no label, and neither are train, val and test.
    """
    photos = [name for name in names if Path(name).suffix.lower() in PHOTO_EXTENSIONS]
    folders = {name: name.split("/")[:-1] for name in photos}
    levels = zip(*folders.values(), strict=False)
    common = len(list(takewhile(lambda level: len(set(level)) == 1, levels)))
    folders = {name: path[common:] for name, path in folders.items()}
    if all(path and path[0].casefold() in SPLITS for path in folders.values()):
        folders = {name: path[1:] for name, path in folders.items()}
    return folders
