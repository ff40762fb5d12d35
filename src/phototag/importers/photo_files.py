"""The files of the photos that a table or JSON file lists."""

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from phototag.base.errors import InputError


def find_photo(
    folder: Path, names: Sequence[str], location: str, seen: dict[str, str], root: Path | None
) -> str:
    """Return the path of a listed photo, relative to the root if there is a root.

    Args:
        folder: Folder that relative names start from.
        names: Possible names of the photo; the first one that exists is used.
        location: File with the line or key of the photo, for messages.
        seen: Paths found so far, with their locations; the path is added.
        root: Folder that must contain the photo, so that a list that came with the photos cannot
            read other files; None for no restriction.

    Raises:
        InputError: There is no name, no file has it, or the file is listed twice or outside of the
            root.
    """
    if not any(names):
        raise InputError(f"{location}: no file name; write the path of the photo")
    paths = [resolve_name(folder, name) for name in names]
    path = next(filter(os.path.isfile, paths), None)  # Path.is_file raises for long names
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
            f"{location}: {path} is outside of {root}: pass the folder of the photos with --images"
        )
    return inside


def resolve_name(folder: Path, name: str) -> Path:
    """Return the path that a name refers to.

    Windows separates folders by backslashes, and macOS writes names in decomposed Unicode (NFD).
    """
    name = name.replace("\\", "/")
    paths = [folder / name]
    paths += [folder / unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    return next(filter(os.path.lexists, paths), paths[0])


def choose_images_folder(source: Path, names: Sequence[str], images: Path | None) -> Path:
    """Return the folder that the names in a JSON file start from.

    Unless the user passed one, this is the first folder that contains the first photo: the folder
    of the file, its parent, or images/, data/ or (in COCO's layout) val2017/ in one of them.

    Args:
        source: Path of the JSON file.
        names: Possible names of the first photo.
        images: Folder passed with --images, or None.

    Raises:
        InputError: No folder contains the photo.
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
        f"{source}: {photo} is neither beside the file nor in images/: pass the folder of the "
        "photos with --images"
    )
