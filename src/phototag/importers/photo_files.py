"""Search for the photo files that a table or JSON file lists."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from phototag.base.errors import InputError


def find_photo(
    folder: Path, names: Sequence[str], location: str, seen: dict[str, str], root: Path | None
) -> str:
    """Return the path of a photo in a list; the path is relative to `root` if `root` is not None.

    Args:
        folder: Folder that relative names refer to.
        names: Possible names of the photo; the first one that exists is used.
        location: Place of the photo in the list (file and line or key), for error messages.
        seen: Location of each photo found so far, by path; this function adds the new photo.
        root: Folder that must contain the photo, so that a downloaded list cannot refer to other
            files on this machine; None for no restriction.

    Raises:
        InputError: The name is empty, the file is missing or listed twice, or the file is outside
            `root`.
    """
    if not any(names):
        raise InputError(f"{location}: no file name; write the path of the photo")
    paths = [resolve_name(folder, name) for name in names]
    path = next(filter(os.path.isfile, paths), None)  # Path.is_file raises an error for long names
    if path is None:
        problem = "is not a file" if os.path.lexists(paths[0]) else "is missing"
        raise InputError(
            f"{location}: {paths[0]} {problem}: fix the name, or pass the folder of the photos "
            "with --images"
        )
    first = seen.setdefault(os.path.normpath(path), location)
    if first != location:
        raise InputError(f"{location}: {path} is already listed in {first}; remove one of them")
    if root is None:
        return str(path)
    inside = os.path.relpath(os.path.normpath(path), root).replace(os.sep, "/")
    if inside.split("/")[0] == "..":
        raise InputError(
            f"{location}: {path} is outside {root}: pass the folder of the photos with --images"
        )
    return inside


def resolve_name(folder: Path, name: str) -> Path:
    """Return the path of the file that a name refers to.

    The name may contain backslashes (from Windows) or decomposed Unicode (NFD, from macOS).
    """
    name = name.replace("\\", "/")
    paths = [folder / name]
    paths += [folder / unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    return next(filter(os.path.lexists, paths), paths[0])


def choose_images_folder(source: Path, names: Sequence[str], images: Path | None) -> Path:
    """Return the folder that the file names in a JSON file are relative to.

    If the user passed no folder, return the first candidate that contains the first photo. The
    candidates are the folder of the JSON file, its parent folder, and the subfolders `images`,
    `data` and (for instances_val2017.json) `val2017` of these two folders.

    Args:
        source: Path of the JSON file.
        names: Possible names of the first photo.
        images: Folder passed with --images, or None.

    Raises:
        InputError: No candidate folder contains the first photo.
    """
    if images is not None:
        return images
    parts = ("", "images", "data", source.stem.removeprefix("instances_"))
    bases = (source.parent, source.parent.parent)
    for folder in [base / part for base in bases for part in parts]:
        if any(os.path.isfile(resolve_name(folder, name)) for name in names):  # noqa: PTH113
            return folder
    photo = names[0] if names else "no photo"
    raise InputError(
        f"{source}: {photo} is neither next to this file nor in images/: pass the folder of the "
        "photos with --images"
    )
