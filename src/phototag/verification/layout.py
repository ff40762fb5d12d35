"""Layout of a dataset's source: `images/imN.jpg` with `annotations/CLASS.txt` next to it.

Both folders lie at the top or inside one folder; the course's zip has them in `train/`. Capital
letters in their names do not matter. `phototag import` also writes `sources.csv` and
`unknown/CLASS.txt` next to them.
"""

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from phototag.base.errors import InputError
from phototag.decoding.sources import list_files
from phototag.decoding.system_files import split_system_files


class Layout(NamedTuple):
    """The files of a dataset, as paths relative to the source with forward slashes.

    Attributes:
        images: Photos.
        annotations: Files in the folder `annotations`.
        unknown: Files in the folder `unknown`.
        sources: The file sources.csv, or None without one.
        system_files: System files in any folder; they are in no other list.
    """

    images: list[str]
    annotations: list[str]
    unknown: list[str]
    sources: str | None
    system_files: list[str]


def find_layout(source: Path) -> Layout:
    """Find the photos and label files of a folder or zip.

    Raises:
        InputError: Not exactly one folder `images` has a folder `annotations` next to it, or a
            folder of these names is a link.
    """
    # A zip made by macOS repeats all files as system files below __MACOSX.
    names, system_files = split_system_files(list_files(source))
    for name in names:
        folder = PurePosixPath(name.casefold()).name
        if folder in ("images", "annotations", "unknown") and (source / name).is_dir():
            raise InputError(
                f"{source / name} is a link to a folder, which is not followed: replace the link "
                "by the folder"
            )
    paths = {PurePosixPath(name.casefold()).parent for name in names}
    folders = {str(folder) for path in paths for folder in (path, *path.parents)}
    roots = [
        folder.removesuffix("images")
        for folder in sorted(folders)
        if PurePosixPath(folder).name == "images"
        and folder.removesuffix("images") + "annotations" in folders
    ]
    if len(roots) != 1:
        raise InputError(
            f"{source} holds {'several folders' if roots else 'no folder'} images/ with "
            "annotations/ next to it: give a source with one (`phototag import` converts other "
            "layouts)"
        )
    root = roots[0]

    def list_folder(folder: str) -> list[str]:
        return [name for name in names if name.casefold().startswith(f"{root}{folder}/")]

    return Layout(
        images=list_folder("images"),
        annotations=list_folder("annotations"),
        unknown=list_folder("unknown"),
        sources=next((name for name in names if name.casefold() == f"{root}sources.csv"), None),
        system_files=system_files,
    )
