"""Search for the photo files that a table or JSON file lists."""

import os
import posixpath
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from urllib.parse import unquote, unquote_plus

from tqdm import tqdm

from phototag.base.errors import InputError
from phototag.decoding.formats import PHOTO_EXTENSIONS
from phototag.importers.source import Source, SourcePhoto

NUM_TRIED = 50  # number of listed photos that are searched in each candidate folder
# `phototag predict` writes a byte that is not UTF-8 as `\xNN`.
_BYTE = re.compile(r"\\x([89a-f][0-9a-f])")
# Label Studio passes the path of a file in a parameter that is not always encoded. Therefore, the
# parameter is everything up to the end of the address.
_SERVED = re.compile(r".*/(?:local-files/?\?d|storage-data/uploaded/?\?filepath)=", re.DOTALL)
_URL = re.compile(r"https?://[^/]*|(?=/data/)", re.IGNORECASE)


def find_photos(
    source: Source, photos: Sequence[SourcePhoto], names: Sequence[Sequence[str]]
) -> list[SourcePhoto]:
    """Return the photos that a table or JSON file lists, with the paths of their files.

    The first of the possible `names` of a photo that exists is used. Unless the source is a table
    of the user, the photos must be in the folder of photos, so that a downloaded list cannot refer
    to other files on this machine.

    Raises:
        InputError: A photo has no name or is outside the folder, or files are missing.
    """
    folder = _choose_folder(source, names)
    root = None if source.is_table() and not source.is_metadata() else folder
    found, missing = [], []
    for photo, candidates in zip(tqdm(photos, "read", disable=None), names, strict=True):
        if not any(candidates):
            raise InputError(f"{photo.place}: no file name; write the path of the photo")
        path = _find_file(folder, candidates)
        if path is None:
            path = folder / candidates[0].replace("\\", "/")
            missing.append((photo.place, path))
        name = str(path)
        if root is not None:
            name = os.path.relpath(os.path.normpath(path), root).replace(os.sep, "/")
            if name.split("/")[0] == "..":
                raise InputError(
                    f"{photo.place}: {path} is outside {root}: move the photo into this folder"
                )
        found.append(replace(photo, name=name, root=root))
    if missing:
        place, path = missing[0]
        problem = "is not a file" if os.path.lexists(path) else "is missing"
        if len(missing) > 1:
            problem += f", one of {len(missing)} missing photos"
        fix = "fix the name, or pass the folder of the photos with --images"
        if archive := next(folder.glob("*.zip"), None):
            fix = f"unpack {archive} first if it contains the photos"
        raise InputError(f"{place}: {path} {problem}: {fix}")
    return found


def list_names(address: str) -> list[str]:
    """Return the possible names of a photo, given its path or URL on another machine.

    The names are the trailing parts of the path, from long to short: a/b.jpg and b.jpg for
    ../a/b.jpg.
    """
    path = address
    if served := _SERVED.match(address):
        path = address[served.end() :]
    elif url := _URL.match(address):
        path = re.split("[?#]", address[url.end() :])[0]
    names = []
    for decoded in (unquote(path, errors="surrogateescape"), path, unquote_plus(path)):
        for form in (decoded, decoded.replace("\\", "/")):
            parts = posixpath.normpath(f"/./{form}")[1:].split("/")
            names += ["/".join(parts[start:]) for start in range(len(parts))]
    return sorted(filter(None, dict.fromkeys(names)), key=lambda name: -name.count("/"))


def _resolve_name(folder: Path, name: str) -> Path:
    """Return the path of the file that a name from any operating system refers to."""
    slashed = name.replace("\\", "/")
    forms = [unicodedata.normalize(form, slashed) for form in ("NFC", "NFD")]
    decoded = _BYTE.sub(lambda match: os.fsdecode(bytes.fromhex(match[1])), name)
    paths = [folder / each for each in dict.fromkeys((name, slashed, *forms, decoded))]
    return next(filter(os.path.lexists, paths), paths[0])


def _find_file(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first existing file; if none exists, add the extension of a photo."""
    for name in names:
        # Path.is_file raises an error for long names.
        if os.path.isfile(path := _resolve_name(folder, name)):  # noqa: PTH113
            return path
    for name, change_case in product(names, (str.lower, str.upper)):
        paths = [_resolve_name(folder, name + change_case(end)) for end in PHOTO_EXTENSIONS]
        found = list(filter(os.path.isfile, paths))
        if len(found) == 1:
            return found[0]
    return None


def _choose_folder(source: Source, photos: Sequence[Sequence[str]]) -> Path:
    """Return the folder that the names of photos in a table or JSON file are relative to."""
    path, images = source.path, source.options.images
    if images is not None or source.is_table() or not photos:
        return images or path.parent
    # Choose the folder near the JSON file that contains the most of the first photos; for
    # instances_val2017.json, the photos may be in val2017 or images/val2017.
    split = path.stem.removeprefix("instances_")
    parts = ("", "images", "data", split, f"images/{split}")
    folders = [base / part for base in (path.parent, path.parent.parent) for part in parts]
    tried = photos[:NUM_TRIED]
    found = [sum(_find_file(folder, names) is not None for names in tried) for folder in folders]
    if any(found):
        return folders[found.index(max(found))]
    example = next((name for names in tried for name in names), "''")
    raise InputError(
        f"{path}: none of {len(tried)} listed photos, such as {example}, is next to this file or "
        "in images/: pass the folder of the photos with --images"
    )
