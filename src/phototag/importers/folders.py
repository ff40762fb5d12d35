"""Import of photos in one folder per label: cats/1.jpg has the label `cats`."""

import hashlib
import re
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.decoding.sources import read_named_file
from phototag.importers.source import Source, SourceDataset, SourcePhoto
from phototag.verification.labels import check_label, normalize

# Names of splits. A name may be part of a longer name, such as seg_train or test-set.
SPLIT = re.compile(
    r"(?<![a-z])(train(ing)?|val(id(ation)?)?|dev|test(ing)?)(?![a-z])", re.IGNORECASE
)

# Names of folders that are probably not labels, without digits, spaces and punctuation.
DOUBTFUL = re.compile(
    r"""((un|not)(sorted|labell?ed|tagged|categori[sz]ed|classified|known|sure)
    | misc(ellaneous)? | others? | various | rest | all | new | incoming | inbox | import(s|ed)?
    | pending | archive | backup | te?mp | todo | to(be)?(sort|label|tag)(l?ed)?
    | none | nothing | no(label|tag)s? | negatives?
    ) ((photo|image|picture|pic|file)s?)?
    """,
    re.IGNORECASE | re.VERBOSE,
)
MEANINGS = ("unknown", "none", "label")


def parse_meanings(texts: Sequence[str]) -> dict[str, str]:
    """Parse the values of the option `--folder`, such as `misc=unknown`."""
    meanings = {}
    for text in texts:
        name, _, meaning = text.rpartition("=")
        if not name or meaning not in MEANINGS:
            raise InputError(
                f"--folder {text}: write NAME=unknown (the labels of the photos in the folder NAME "
                "are unknown), NAME=none (the photos have none of the labels) or NAME=label"
            )
        meanings[_name(name.rstrip("/"))] = meaning
    return meanings


def recognize(source: Source) -> bool:
    """Return whether the photos of a source are in at least two label folders.

    One folder is enough if the user names it, or if it is a label of the dataset to which the
    photos are added.
    """
    found = {folder for path in _find_folders(source).values() for folder in path}
    return len(found) > 1 or bool(found & _list_known(source))


def read(source: Source) -> SourceDataset:
    """Read photos that are in one folder per label.

    The labels of a photo are the names of all label folders on its path. Files with identical bytes
    are imported as one photo, which has the labels of all these files. If a photo is outside the
    label folders, or in a folder that the user declares unknown, all its other labels are unknown.
    If labels are only in the dataset to which the photos are added, they are unknown too, except
    for photos in a folder that the user declares to have none of the labels.

    Raises:
        InputError: A folder is probably not a label, or cannot be one, and the user has not
            declared what it means.
    """
    photo_names, others = source.split_names
    folders = _find_folders(source)
    found = sorted({folder for path in folders.values() for folder in path})
    meanings = _find_meanings(source, found)
    labels = {
        folder: check_label(folder, source.path) for folder in found if meanings[folder] == "label"
    }
    same_bytes: dict[str, list[str]] = {}
    for name in tqdm(folders, "compare", disable=None):
        digest = hashlib.sha256(read_named_file(source.path, name)).hexdigest()
        same_bytes.setdefault(digest, []).append(name)
    other_labels = (source.options.known_labels or frozenset()).difference(labels.values())
    photos = []
    for names in same_bytes.values():
        paths = [folders[name] for name in names]
        carried = frozenset(labels[folder] for path in paths for folder in path if folder in labels)
        known = any(path and all(meanings[part] != "unknown" for part in path) for path in paths)
        is_none = any(meanings[part] == "none" for path in paths for part in path)
        unknown = (frozenset() if is_none else other_labels) if known else None
        photos.append(SourcePhoto(names[0], source.path, carried, unknown))
    notes = source.describe_others()
    used = {folder for name in photo_names for folder in PurePosixPath(name).parents}
    if empty := sorted({str(PurePosixPath(name).parent) for name in others} - set(map(str, used))):
        notes.append(f"folders without a photo, which did not become labels: {', '.join(empty)}")
    if nested := sum(len(path) > 1 for path in folders.values()):
        notes.append(f"photos in nested folders, labelled with all folder names: {nested}")
    if copies := len(folders) - len(same_bytes):
        notes.append(f"skipped files with the same bytes as another file: {copies}")
    if found and (outside := sum(not path for path in folders.values())):
        notes.append(f"photos outside the label folders: {outside}")
    description = f"one folder per label: {len(folders)} photos in {len(found)} folders"
    if not found:
        description = f"photos without labels: {len(folders)}"
    defined = sorted(other_labels) if "none" in meanings.values() else []
    return SourceDataset(description, photos, defined, notes)


def _find_folders(source: Source) -> dict[str, list[str]]:
    """Return the label folders on the path of each photo, outermost folder first."""
    known = _list_known(source)
    folders = {
        name: [_name(part) for part in name.split("/")[:-1]] for name in source.split_names[0]
    }
    # Ignore folders that contain all photos, and folders of splits (train, val, test).
    while folders and all(folders.values()):
        outer = {path[0] for path in folders.values()}
        inner = {name: path[1:] for name, path in folders.items()}
        are_splits = all(map(SPLIT.search, outer))
        is_last = outer <= known and not any(inner.values())
        if not are_splits and (len(outer) > 1 or is_last):
            break
        folders = inner
    return folders


def _find_meanings(source: Source, found: Sequence[str]) -> dict[str, str]:
    """Return what each of the folders means; refuse folders that are probably not labels."""
    given = source.options.folder
    if missing := [name for name in given if name not in found]:
        raise InputError(
            f"--folder {missing[0]}: no folder in {source.path} has this name: choose from "
            f"{', '.join(found) or '(none)'}"
        )
    doubtful = [
        folder
        for folder in found
        if len(found) == 1 or DOUBTFUL.fullmatch(re.sub(r"[\W\d_]", "", folder))
        if folder not in _list_known(source)
    ]
    if doubtful:
        name = shlex.quote(doubtful[0])
        raise InputError(
            f"{source.path}: folders that may not be labels: {', '.join(doubtful)}: pass for each "
            f"of them --folder {name}=unknown (the labels of its photos are unknown), --folder "
            f"{name}=none (its photos have none of the labels) or --folder {name}=label"
        )
    return {folder: given.get(folder, "label") for folder in found}


def _list_known(source: Source) -> set[str]:
    """Return the names of folders that are not questioned."""
    return {*source.options.folder, *(source.options.known_labels or ())}


def _name(folder: str) -> str:
    return normalize(folder).strip()
