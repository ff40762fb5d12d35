"""Import of photos in one folder per label: cats/1.jpg has the label `cats`."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from tqdm import tqdm

from phototag.decoding.sources import read_named_file
from phototag.importers.source import Source, SourceDataset, SourcePhoto, check_label

# Names of splits. A name may be part of a longer name, such as seg_train or test-set.
SPLIT = re.compile(
    r"(?<![a-z])(train(ing)?|val(id(ation)?)?|dev|test(ing)?)(?![a-z])", re.IGNORECASE
)


def recognize(source: Source) -> bool:
    """Return whether the photos of a source are in at least two label folders."""
    folders = _find_folders(source.split_names[0])
    return len({folder for path in folders.values() for folder in path}) > 1


def read(source: Source) -> SourceDataset:
    """Read photos that are in one folder per label.

    The labels of a photo are the names of all label folders on its path. Files with identical bytes
    are imported as one photo, which has the labels of all these files. If a photo is outside the
    label folders, all its labels are unknown.
    """
    photo_names, others = source.split_names
    folders = _find_folders(photo_names)
    labels = {
        folder: check_label(folder, source.path)
        for folder in sorted({folder for path in folders.values() for folder in path})
    }
    same_bytes: dict[str, list[str]] = {}
    for name in tqdm(folders, "compare", disable=None):
        digest = hashlib.sha256(read_named_file(source.path, name)).hexdigest()
        same_bytes.setdefault(digest, []).append(name)
    photos = []
    for names in same_bytes.values():
        carried = frozenset(labels[folder] for name in names for folder in folders[name])
        photos.append(SourcePhoto(names[0], source.path, carried, frozenset() if carried else None))
    notes = []
    if others:
        notes.append(f"skipped files that are not photos: {len(others)}, such as {others[0]!r}")
    used = {folder for name in photo_names for folder in PurePosixPath(name).parents}
    if empty := sorted({str(PurePosixPath(name).parent) for name in others} - set(map(str, used))):
        notes.append(f"folders without a photo, which did not become labels: {', '.join(empty)}")
    if nested := sum(len(path) > 1 for path in folders.values()):
        notes.append(f"photos in nested folders, labelled with all folder names: {nested}")
    if copies := len(folders) - len(same_bytes):
        notes.append(f"skipped files with the same bytes as another file: {copies}")
    if outside := sum(not photo.labels for photo in photos):
        notes.append(f"photos outside the label folders, with unknown labels: {outside}")
    description = f"one folder per label: {len(folders)} photos in {len(labels)} folders"
    return SourceDataset(description, photos, [], notes)


def _find_folders(photos: Sequence[str]) -> dict[str, list[str]]:
    """Return the label folders on the path of each photo, outermost folder first."""
    folders = {name: name.split("/")[:-1] for name in photos}
    # Ignore folders that contain all photos, and folders of splits (train, val, test).
    while folders and all(folders.values()):
        outer = {path[0] for path in folders.values()}
        if len(outer) > 1 and not all(map(SPLIT.search, outer)):
            break
        folders = {name: path[1:] for name, path in folders.items()}
    return folders
