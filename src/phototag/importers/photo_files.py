"""The files of the photos that a table or JSON file lists."""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from phototag.base.errors import InputError
from phototag.verification.labels import normalize


def find_photo(
    folder: Path, name: str, location: str, seen: dict[str, str], root: Path | None
) -> str:
    """Return the path of a listed photo, relative to the root if there is a root.

    Args:
        folder: Folder that relative names start from.
        name: Name of the photo in the table or JSON file.
        location: File with the line or key of the name, for messages.
        seen: Paths found so far, with their locations; the path is added.
        root: Folder that must contain the photo, so that a list that came with the photos cannot
            read other files; None for no restriction.

    Raises:
        InputError: The name is empty, listed twice, not the name of a file, or outside of the root.
    """
    if not name:
        raise InputError(f"{location}: no file name; write the path of the photo")
    path = resolve_name(folder, name)
    first = seen.setdefault(os.path.normpath(path), location)
    if first != location:
        raise InputError(f"{location}: {name} is already listed in {first}; remove one of them")
    if not os.path.isfile(path):  # noqa: PTH113 (Path.is_file raises for long names)
        problem = "is not a file" if os.path.lexists(path) else "is missing"
        raise InputError(f"{location}: {path} {problem}")
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

    Windows separates folders by backslashes, and macOS writes names in decomposed Unicode.
    """
    path = folder / name
    if os.path.lexists(path):
        return path
    path = folder
    for part in Path(name.replace("\\", "/")).parts:
        exists = os.path.lexists(path / part)
        path /= part if exists else list_names(path).get(normalize(part), part)
    return path


@lru_cache(maxsize=64)
def list_names(folder: Path) -> dict[str, str]:
    """Return the names in a folder by their composed form; empty if the folder is unreadable."""
    try:
        return {normalize(name): name for name in os.listdir(folder)}  # noqa: PTH208
    except (OSError, ValueError):
        return {}


def choose_images_folder(source: Path, names: Sequence[str], images: Path | None) -> Path:
    """Return the folder that the names in a JSON file start from.

    Unless the user passed one, this is the folder of the file, its parent, or a folder images/,
    data/ or (in COCO's layout) val2017/ in one of them, whichever has the most of the photos.

    Args:
        source: Path of the JSON file.
        names: Some names in it.
        images: Folder passed with --images, or None.

    Raises:
        InputError: No folder has a photo, or several have equally many.
    """
    names = [name for name in names if name]
    if not names:
        raise InputError(f"{source}: no file names of photos")
    if images is not None:
        return images
    parts = ("", "images", "data", source.stem.removeprefix("instances_"))
    folders = [base / part for base in (source.parent, source.parent.parent) for part in parts]
    found: dict[frozenset[Path], Path] = {}  # several of the folders may be the same one
    for folder in folders:
        paths = [resolve_name(folder, name) for name in names]
        found.setdefault(frozenset(path.resolve() for path in paths if path.is_file()), folder)
    most = max(len(files) for files in found)
    best = [folder for files, folder in found.items() if len(files) == most]
    if not most:
        raise InputError(
            f"{source}: {names[0]} is neither beside the file nor in "
            "images/: pass the folder of the photos with --images"
        )
    if len(best) > 1:
        raise InputError(
            f"{source}: its photos may be those in {best[0]} or those in {best[1]}: choose the "
            "folder with --images"
        )
    return best[0]
