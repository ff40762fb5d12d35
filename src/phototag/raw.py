"""Raw photos and label files: a folder or one zip, read alike.

The layout is `images/imN.jpg` and `annotations/CLASS.txt`, at the top or inside one folder
(the course's own zip holds them in `train/`).
"""

import os
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from phototag.errors import InputError


class Layout(NamedTuple):
    """The files of a data set, each a path with forward slashes, relative to the source."""

    images: list[str]
    annotations: list[str]


def list_files(source: Path) -> list[str]:
    """List every file of a folder or zip, sorted, as relative paths with forward slashes.

    Raises:
        InputError: The source is missing, or neither a folder nor a zip.
    """
    if source.is_dir():
        found = [
            os.path.relpath(os.path.join(folder, name), source)  # noqa: PTH118 (20 000 files)
            for folder, _, names in os.walk(source)
            for name in names
        ]
        return sorted(name.replace(os.sep, "/") for name in found)
    if not source.exists():
        raise InputError(f"{source} is missing: give a folder or a zip that exists")
    return sorted(name for name in _open_zip(source).namelist() if not name.endswith("/"))


def read_file(source: Path, name: str) -> bytes:
    """Read one file that `list_files` named."""
    if source.is_dir():
        return (source / name).read_bytes()
    return _open_zip(source).read(name)


def find_layout(source: Path) -> Layout:
    """Find the photos and the label files.

    Raises:
        InputError: There is no `images` folder with an `annotations` folder beside it, or several.
    """
    names = list_files(source)
    folders = {name.rpartition("/")[0] for name in names}
    roots = [
        folder.removesuffix("images")
        for folder in folders
        if folder.rpartition("/")[2] == "images"
        and folder.removesuffix("images") + "annotations" in folders
    ]
    if len(roots) != 1:
        found = "several of them" if roots else "none"
        raise InputError(
            f"{source} must hold images/ with annotations/ beside it, once; it holds {found} "
            "(`phototag import` brings other layouts into this one)"
        )
    root = roots[0]
    return Layout(
        images=[name for name in names if name.startswith(f"{root}images/")],
        annotations=[
            name for name in names if name.startswith(f"{root}annotations/") and name[-4:] == ".txt"
        ],
    )


# A worker reads thousands of members: the zip's directory is parsed once a process.
@lru_cache(maxsize=2)
def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise InputError(f"{path} is neither a folder nor a zip") from None
