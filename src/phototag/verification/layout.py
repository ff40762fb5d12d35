"""Layout of a dataset: `images/imN.jpg` with `annotations/CLASS.txt` beside it."""

from pathlib import Path
from typing import NamedTuple

from phototag.base.errors import InputError
from phototag.decoding.sources import list_files
from phototag.decoding.system_files import split_system_files


class Layout(NamedTuple):
    """The files of a data set, each a path with forward slashes, relative to the source.

    `system_files` are those of operating systems and tools in any folder; no other list has them.
    """

    images: list[str]
    annotations: list[str]
    unknown: list[str]
    sources: str | None
    system_files: list[str]


def find_layout(source: Path) -> Layout:
    """Find the photos and the label files; `Images/` and `ANNOTATIONS/` will do.

    Raises:
        InputError: There is no `images` folder with an `annotations` folder beside it, or several.
    """
    # macOS puts shadows of all files into a zip, in the same folders below __MACOSX.
    names, system_files = split_system_files(list_files(source))
    folders = {""}
    for folder in {name.rpartition("/")[0] for name in names}:
        while folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    found = {
        leaf: [folder for folder in sorted(folders) if _split(folder)[1].casefold() == leaf]
        for leaf in ("images", "annotations")
    }
    pairs = [
        (images, annotations)
        for images in found["images"]
        for annotations in found["annotations"]
        if _split(images)[0] == _split(annotations)[0]
    ]
    if len(pairs) != 1:
        _refuse_links(source, [name for name in names if _split(name)[1].casefold() in found])
        number = "several of them" if pairs else "none"
        raise InputError(
            f"{source} must hold images/ with annotations/ beside it, once; it holds {number} "
            "(`phototag import` brings other layouts into this one)"
        )
    images, annotations = pairs[0]
    folder = _split(images)[0]
    inside = {name: name.removeprefix(folder) for name in names if name.startswith(folder)}
    unknown = [name for name, path in inside.items() if path.casefold().startswith("unknown/")]
    _refuse_links(source, [name for name, path in inside.items() if path.casefold() == "unknown"])
    listing = f"{folder}sources.csv"
    return Layout(
        images=[name for name in names if name.startswith(f"{images}/")],
        annotations=[name for name in names if name.startswith(f"{annotations}/")],
        unknown=unknown,
        sources=listing if listing in names else None,
        system_files=system_files,
    )


def _refuse_links(source: Path, names: list[str]) -> None:
    for name in names if source.is_dir() else []:
        if (source / name).is_dir():
            raise InputError(
                f"{source / name} is a link to a folder, which is not followed: move the folder "
                "itself there"
            )


def _split(path: str) -> tuple[str, str]:
    """Divide a path into its folder, which ends with a slash where there is one, and its name."""
    folder, slash, name = path.rpartition("/")
    return folder + slash, name
