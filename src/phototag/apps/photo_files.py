"""Paths of the photos that a command is called with."""

import codecs
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from phototag.apps.formats import show_name
from phototag.base.errors import InputError
from phototag.decoding.formats import split_photos
from phototag.decoding.sources import list_files
from phototag.decoding.system_files import split_system_files


def find_photos(
    sources: Iterable[str],
    stdin: BinaryIO,
    report: Callable[[str], object] = print,
    allow_empty: bool = False,
) -> list[str]:
    """Return the paths of all photos in the given files and folders, without duplicates.

    Args:
        sources: Paths of files and folders (searched recursively), or `-` to read paths from stdin.
        stdin: Stream with a list of paths, one per line or separated by NUL.
        report: Function that prints a message about files in folders that are not photos.
        allow_empty: Whether a folder may contain no photos, and stdin no paths.

    Raises:
        InputError: A folder contains no photos, or stdin contains no paths.
    """
    found: dict[str, None] = {}
    for source in sources:
        path = Path(source)
        names = [source]
        if source == "-":
            names = list(read_paths(stdin))
        elif path.is_dir():
            photos, others = split_photos(path, split_system_files(list_files(path))[0])
            names = [str(path / name) for name in photos]
            if others:
                number = f"{show_name(source)}: skipped files that are not photos: {len(others)}"
                report(f"{number}, such as {show_name(others[0])}")
        if not names and not allow_empty:
            raise InputError(f"{show_name(source)}: no photos found: pass other files or folders")
        found |= dict.fromkeys(names)
    return list(found)


def check_existence(names: Iterable[str]) -> None:
    """Raise an InputError if there is no file at any of the paths."""
    if missing := [name for name in names if not os.path.lexists(name)]:
        raise InputError(
            f"paths that do not exist: {len(missing)}, such as {show_name(missing[0])}: correct "
            "them, and run the command again"
        )


def read_paths(stream: BinaryIO) -> Iterator[str]:
    """Yield the paths in a stream, separated by line breaks (Unix or Windows) or by NUL."""
    data = stream.read().removeprefix(codecs.BOM_UTF8)
    lines = data.split(b"\0") if b"\0" in data else data.replace(b"\r\n", b"\n").split(b"\n")
    yield from (os.fsdecode(line) for line in lines if line.strip())


def hash_photo(photo: bytes) -> str:
    """Return the SHA-256 hash of the content of a file."""
    return hashlib.sha256(photo).hexdigest()
