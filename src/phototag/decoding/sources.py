"""Raw photos and label files: a folder or one zip, read alike.

The layout is `images/imN.jpg` and `annotations/CLASS.txt`, at the top or inside one folder
(the course's own zip holds them in `train/`); what `phototag import` writes, `sources.csv` and
`unknown/CLASS.txt`, may stand beside them.
"""

import os
import stat
import zipfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from phototag.base.errors import InputError
from phototag.decoding.links import is_cached
from phototag.decoding.system_files import split_leftovers

MAX_BYTES = 512 * 2**20  # of one file: more is no photo, but may well be a trap


class Layout(NamedTuple):
    """The files of a data set, each a path with forward slashes, relative to the source.

    `leftovers` are those of operating systems and tools, wherever they lie; they stand in no other
    list.
    """

    images: list[str]
    annotations: list[str]
    unknown: list[str]
    sources: str | None
    leftovers: list[str]


def list_files(source: Path) -> list[str]:
    """List every file of a folder or zip, sorted, as relative paths with forward slashes.

    Links to folders are not followed; they are listed like files, so that nobody misses them.

    Raises:
        InputError: The source is missing, neither a folder nor a zip, or may not be read.
    """
    try:
        if source.is_dir():
            return sorted(_walk(source))
        if not source.exists():
            raise InputError(f"{source} is missing: give a folder or a zip that exists")
        return sorted(_open_zip(source)[1])
    except OSError as error:
        raise InputError(f"{error.filename or source}: {error.strerror or error}") from None


def read_file(source: Path, name: str) -> bytes:
    """Read one file that `list_files` named.

    Raises:
        InputError: It cannot or should not be read: a link out of the folder (other than into
            DVC's cache), a pipe, a file of over `MAX_BYTES`, a damaged member of a zip. The
            message is the reason alone.
    """
    try:
        if source.is_dir():
            return _read_regular(source, source / name)
        return _read_member(*_open_zip(source), name)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"unreadable: {error.strerror or error}") from None
    except Exception as error:  # what reads a damaged zip raises anything at all
        message = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"unreadable: {message}") from None


def read_path(path: Path) -> bytes:
    """Read a file that the user has named himself, through links wherever they lead.

    Raises:
        InputError: As for `read_file`.
    """
    try:
        real = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, NUL in the name
        raise InputError(f"unreadable: {getattr(error, 'strerror', None) or error}") from None
    return read_file(real.parent, real.name)


def find_layout(source: Path) -> Layout:
    """Find the photos and the label files; `Images/` and `ANNOTATIONS/` will do.

    Raises:
        InputError: There is no `images` folder with an `annotations` folder beside it, or several.
    """
    # macOS puts shadows of all files into a zip, in the same folders below __MACOSX.
    names, leftovers = split_leftovers(list_files(source))
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
        leftovers=leftovers,
    )


def _refuse_links(source: Path, names: list[str]) -> None:
    for name in names if source.is_dir() else []:
        if (source / name).is_dir():
            raise InputError(
                f"{source / name} is a link to a folder, which is not followed: move the folder "
                "itself there"
            )


def _walk(source: Path) -> list[str]:
    def fail(error: OSError) -> None:
        raise error  # or a folder that may not be read would look empty

    found = []
    for folder, folders, names in os.walk(source, onerror=fail):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118
        inside = os.path.relpath(folder, source).replace(os.sep, "/")
        prefix = "" if inside == "." else f"{inside}/"
        found += [prefix + name for name in (*names, *links)]
    return found


def _split(path: str) -> tuple[str, str]:
    """Divide a path into its folder, which ends with a slash where there is one, and its name."""
    folder, slash, name = path.rpartition("/")
    return folder + slash, name


def _read_regular(source: Path, path: Path) -> bytes:
    status = path.lstat()
    link = "a link to " if stat.S_ISLNK(status.st_mode) else ""
    if link:
        if not path.exists():
            raise InputError("a broken link")
        file = path.resolve()
        if not file.is_relative_to(source.resolve()) and not is_cached(file, source):
            raise InputError("a link out of the folder")
        status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{link}a folder")
    if not stat.S_ISREG(status.st_mode):
        raise InputError("not a regular file")  # reading a pipe would wait for ever
    _check_size(status.st_size)
    return path.read_bytes()


def _read_member(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str) -> bytes:
    if name not in members:
        raise InputError("no such file in the zip")
    member = members[name]
    if stat.S_ISLNK(member.external_attr >> 16):
        raise InputError("a link in a zip")
    _check_size(member.file_size)
    return archive.read(member)


def _check_size(num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        raise InputError(f"too many bytes: {num_bytes / 2**20:.0f} MiB")


def _open_zip(path: Path) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    status = path.stat()
    return _parse_zip(path, (status.st_mtime_ns, status.st_size))


# A worker reads thousands of members: the zip's directory is parsed once a process.
@lru_cache(maxsize=2)
def _parse_zip(
    path: Path, stamp: tuple[int, int]
) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """Open a zip; its files by name, of two of one name the later one, as programs unpack it."""
    try:
        archive = zipfile.ZipFile(path)
    except OSError:
        raise
    except zipfile.BadZipFile:
        raise InputError(f"{path} is neither a folder nor a zip") from None
    except Exception as error:  # a damaged directory raises anything at all
        raise InputError(f"{path} is a damaged zip: {error}") from None
    members = {
        _member_name(member): member
        for member in archive.infolist()
        if not member.filename.endswith(("/", "\\"))
    }
    return archive, members


def _member_name(member: zipfile.ZipInfo) -> str:
    """Return a relative path with forward slashes, whatever the program wrote that made the zip."""
    name = member.filename
    if not member.flag_bits & 0x800:
        with suppress(UnicodeError):  # macOS writes UTF-8 and does not say so
            name = name.encode("cp437").decode()
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))
