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

from phototag.base.errors import InputError
from phototag.decoding.links import is_cached

MAX_BYTES = 512 * 2**20  # of one file: more is no photo, but may well be a trap


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
