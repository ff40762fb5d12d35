"""Layout of a dataset's source: photos `images/imN.jpg` and label files `annotations/CLASS.txt`.

Both folders are at the top level or inside the same folder, such as `train/` in the course's zip.
Folder names are not case-sensitive. `phototag import` also writes `sources.csv` and
`unknown/CLASS.txt` next to these folders.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from phototag.base.errors import InputError
from phototag.decoding.sources import list_files
from phototag.decoding.system_files import split_system_files


class Layout(NamedTuple):
    """The files in each folder, as paths with forward slashes that are relative to the source.

    `sources` is the path of sources.csv, or None if the source does not have this file. System
    files of all folders are only in the list `system_files`.
    """

    images: list[str]
    annotations: list[str]
    unknown: list[str]
    sources: str | None
    system_files: list[str]


def find_layout(source: Path, start: str = "") -> Layout:
    """Find the photos, label files and system files in a folder or zip.

    A zip written by `phototag import` contains sources.csv. It may lack the folders if the import
    has no new photos or no labels. `start` is put in front of the returned paths.

    Raises:
        InputError: The source does not have exactly one folder `images` with a folder
            `annotations` next to it, or one of these folders is a link.
    """
    # A zip file created by macOS has a system file in __MACOSX for each normal file.
    names, system_files = split_system_files(list_files(source))
    for name in names:
        folder = PurePosixPath(name.casefold()).name
        if folder in ("images", "annotations", "unknown") and (source / name).is_dir():
            raise InputError(
                f"{source / name} is a link to a folder, which is not followed: replace the link "
                "with the folder"
            )
    roots = find_roots(names)
    if not roots and "sources.csv" in map(str.casefold, names):
        roots = [PurePosixPath()]
    if len(roots) != 1:
        raise InputError(
            f"{source} holds {'several folders' if roots else 'no folder'} images/ next to "
            "a folder annotations/: expected exactly one (`phototag import` converts other "
            "layouts)"
        )

    def find(path: str) -> list[str]:
        own = str(roots[0] / path)
        return [f"{start}{name}" for name in names if f"{name.casefold()}/".startswith(f"{own}/")]

    return Layout(
        images=find("images"),
        annotations=find("annotations"),
        unknown=find("unknown"),
        sources=next(iter(find("sources.csv")), None),
        system_files=[f"{start}{name}" for name in system_files],
    )


def find_roots(names: Sequence[str]) -> list[PurePosixPath]:
    """Return the folders, such as `train/`, that contain folders `images` and `annotations`."""
    paths = {PurePosixPath(name.casefold()).parent for name in names}
    folders = {folder for path in paths for folder in (path, *path.parents)}
    roots = [path.parent for path in folders if path.name == "images"]
    return [root for root in roots if root / "annotations" in folders]
