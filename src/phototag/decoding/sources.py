"""Read the files of a dataset's source, which is a folder or a zip file."""

import os
import stat
import subprocess
import sys
import zipfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from phototag.base.errors import InputError

MAX_BYTES = 512 * 2**20  # maximum size of one file


def list_files(source: Path) -> list[str]:
    """List all files in a folder or zip as sorted relative paths with forward slashes.

    Links to folders are listed like files; the files in these folders are not listed.

    Raises:
        InputError: The source is missing, is neither a folder nor a zip, or cannot be read.
    """
    try:
        if source.is_dir():
            return sorted(_walk(source))
        if not source.exists():
            raise InputError(f"{source} is missing: expected an existing folder or zip file")
        return sorted(_open_zip(source)[1])
    except OSError as error:
        raise InputError(f"{error.filename or source}: {error.strerror or error}") from None


def read_file(source: Path, name: str, num_bytes: int = -1) -> bytes:
    """Read a file whose name `list_files` returned, or only the first `num_bytes` bytes of it.

    If the source is a folder of zips, the name may be the path of a zip joined with the name of a
    file in this zip, such as 001-a.zip/images/im1.jpg.

    Raises:
        InputError: The file is damaged, larger than `MAX_BYTES`, not a regular file, or a link to
            a file outside `source` and outside DVC's cache. The message does not name the file.
    """
    try:
        if source.is_dir():
            archive, _, member = name.partition("/")
            if member and archive.lower().endswith(".zip") and (source / archive).is_file():
                return _read_member(source / archive, member, num_bytes)
            return _read_regular(source, source / name, num_bytes)
        return _read_member(source, name, num_bytes)
    except InputError:
        raise
    except Exception as error:  # zipfile raises many kinds of errors on damaged zips
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"unreadable: {' '.join(reason.split())}") from None


def read_named_file(source: Path, name: str) -> bytes:
    """Call `read_file`, but raise errors whose message names the file and the fix."""
    try:
        return read_file(source, name)
    except InputError as error:
        raise InputError(f"{source / name}: {error}; fix or remove the file") from None


def read_path(path: Path) -> bytes:
    """Read a file from a path that the user gave; follow all links.

    Raises:
        InputError: The file cannot be read, for any reason listed in `read_file`.
    """
    try:
        real = Path(os.path.realpath(path))
    except ValueError as error:  # the name contains a NUL character
        raise InputError(f"unreadable: {error}") from None
    return read_file(real.parent, real.name)


def _walk(source: Path) -> list[str]:
    def fail(error: OSError) -> None:
        raise error  # by default, os.walk lists an unreadable folder as empty

    found = []
    for folder, folders, names in os.walk(source, onerror=fail):
        prefix = Path(folder).relative_to(source)
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        found += [(prefix / name).as_posix() for name in (*names, *links)]
    return found


def _read_regular(source: Path, path: Path, num_bytes: int) -> bytes:
    if is_link := path.is_symlink():
        if not path.exists():
            raise InputError("broken link")
        target = path.resolve()
        if not target.is_relative_to(source.resolve()):
            cache = _find_dvc_cache(Path.cwd())
            if cache is None or not target.is_relative_to(cache):
                raise InputError("link to a file outside the folder")
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise InputError("link to a folder" if is_link else "folder")
    if not stat.S_ISREG(status.st_mode):
        raise InputError("not a regular file")  # reading a pipe would block
    _check_size(max(num_bytes, 0) or status.st_size)
    with path.open("rb") as file:
        return file.read(num_bytes)


# If DVC's option `cache.type` is symlink, DVC replaces tracked files with links to its cache.
@lru_cache(maxsize=1)
def _find_dvc_cache(project: Path) -> Path | None:
    """Return the cache folder of the DVC project that contains `project`, or None."""
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    found = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    return Path(found.stdout.strip()).resolve() if found.returncode == 0 else None


def _read_member(source: Path, name: str, num_bytes: int) -> bytes:
    archive, members = _open_zip(source)
    if name not in members:
        raise InputError("no such file in the zip")
    member = members[name]
    if stat.S_ISLNK(member.external_attr >> 16):
        raise InputError("link in a zip")
    _check_size(max(num_bytes, 0) or member.file_size)
    with archive.open(member) as file:
        return file.read(num_bytes)


def _check_size(num_bytes: int) -> None:
    if num_bytes > MAX_BYTES:
        limit = MAX_BYTES // 2**20
        raise InputError(f"file too large: {num_bytes / 2**20:.0f} MiB, the limit is {limit} MiB")


def _open_zip(path: Path) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    status = path.stat()
    return _parse_zip(path, (status.st_mtime_ns, status.st_size))


# A worker reads thousands of files, so each process caches the parsed directory of the zip.
@lru_cache(maxsize=2)
def _parse_zip(
    path: Path, stamp: tuple[int, int]
) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """Open a zip and index its files by name; refuse different files with the same name."""
    try:
        archive = zipfile.ZipFile(path)
    except OSError:
        raise
    except Exception as error:  # zipfile raises many kinds of errors on a damaged directory
        raise InputError(f"{path} is neither a folder nor a valid zip ({error})") from None
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        if member.filename.endswith(("/", "\\")):
            continue
        name = _member_name(member)
        same = members.setdefault(name, member)
        if (same.CRC, same.file_size) != (member.CRC, member.file_size):
            raise InputError(f"{path} holds different files named {name}: remove all but one")
    return archive, members


def _member_name(member: zipfile.ZipInfo) -> str:
    """Return the path of a zip member, decoded as UTF-8 and with forward slashes."""
    name = member.filename
    if not member.flag_bits & 0x800:  # the flag that marks UTF-8 names, which macOS does not set
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))
