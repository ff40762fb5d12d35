"""Raw photos and label files: a folder or one zip, read alike.

The layout is `images/imN.jpg` and `annotations/CLASS.txt`, at the top or inside one folder
(the course's own zip holds them in `train/`); `sources.csv`, which `phototag import` writes, may
stand beside them.
"""

import os
import stat
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from phototag.base.errors import InputError

MAX_BYTES = 512 * 2**20  # of one file: more is no photo, but may well be a trap


class Layout(NamedTuple):
    """The files of a data set, each a path with forward slashes, relative to the source."""

    images: list[str]
    annotations: list[str]
    sources: str | None


def list_files(source: Path) -> list[str]:
    """List every file of a folder or zip, sorted, as relative paths with forward slashes.

    Links to folders are not followed; they are listed like files, so that nobody misses them.

    Raises:
        InputError: The source is missing, or neither a folder nor a zip.
    """
    if source.is_dir():
        found = []
        for folder, folders, names in os.walk(source):
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118
            inside = os.path.relpath(folder, source).replace(os.sep, "/")
            prefix = "" if inside == "." else f"{inside}/"
            found += [prefix + name for name in (*names, *links)]
        return sorted(found)
    if not source.exists():
        raise InputError(f"{source} is missing: give a folder or a zip that exists")
    return sorted(name for name in _open_zip(source).namelist() if not name.endswith("/"))


def read_file(source: Path, name: str) -> bytes:
    """Read one file that `list_files` named.

    Raises:
        InputError: It cannot or should not be read: a link out of the folder, a pipe, a file of
            over `MAX_BYTES`, a damaged member of a zip. The message is the reason alone.
    """
    try:
        if source.is_dir():
            return _read_regular(source, source / name)
        return _read_member(_open_zip(source), name)
    except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"unreadable: {reason}") from None


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
        and not folder.startswith("__MACOSX/")  # macOS puts shadows of all files there
    ]
    if len(roots) != 1:
        for name in names:
            if name.rpartition("/")[2] in ("images", "annotations") and (source / name).is_dir():
                raise InputError(
                    f"{source / name} is a link to a folder, which is not followed: move the "
                    "folder itself there"
                )
        found = "several of them" if roots else "none"
        raise InputError(
            f"{source} must hold images/ with annotations/ beside it, once; it holds {found} "
            "(`phototag import` brings other layouts into this one)"
        )
    root = roots[0]
    return Layout(
        images=[name for name in names if name.startswith(f"{root}images/")],
        annotations=[name for name in names if name.startswith(f"{root}annotations/")],
        sources=f"{root}sources.csv" if f"{root}sources.csv" in names else None,
    )


def _read_regular(source: Path, path: Path) -> bytes:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        if not path.exists():
            raise InputError("a broken link")
        if not path.resolve().is_relative_to(source.resolve()):
            raise InputError("a link out of the folder")
        status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise InputError("a link to a folder")
    if not stat.S_ISREG(status.st_mode):
        raise InputError("not a regular file")  # reading a pipe would wait for ever
    _check_size(status.st_size)
    return path.read_bytes()


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    member = archive.getinfo(name)
    if stat.S_ISLNK(member.external_attr >> 16):
        raise InputError("a link in a zip")
    _check_size(member.file_size)
    return archive.read(member)


def _check_size(num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise InputError(f"too many bytes: {num_bytes / 2**20:.0f} MiB")


# A worker reads thousands of members: the zip's directory is parsed once a process.
@lru_cache(maxsize=2)
def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise InputError(f"{path} is neither a folder nor a zip") from None
