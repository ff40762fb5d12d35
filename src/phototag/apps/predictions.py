"""Photos named on the command line, and what is said of them, written as it comes."""

import codecs
import errno
import fcntl
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from glob import glob, has_magic
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from tqdm import tqdm

from phototag.apps.documents import DOCUMENTS
from phototag.apps.formats import FORMATS, show_name
from phototag.base.errors import InputError
from phototag.base.files import content_key, replace_file
from phototag.base.parallel import Backend, run_in_order
from phototag.decoding.formats import PHOTO_EXTENSIONS
from phototag.decoding.system_files import describe_system_files, split_system_files
from phototag.serving.tagger import (
    BATCH,
    Tagger,
    Tags,
    accelerate_tagger,
    load_tagger,
    read_photo,
    tag_photos,
)

LOADING = Lock()  # of threads, one loads and records the network
MANY = 200  # photos from which on it pays to record the network for ONNX Runtime


def find_photos(
    sources: Iterable[str], listed: Iterable[str], tell: Callable[[str], object] = lambda text: None
) -> list[str]:
    """Find the photos that sources name, each once, in the order given.

    Args:
        sources: Files, folders (searched through, by extension), patterns, or `-`.
        listed: The lines that `-` stands for, one path each.
        tell: Is told how many files of systems and tools a folder holds; they are passed over.

    Raises:
        InputError: A folder or pattern holds no photo, or none is named at all.
    """
    found: dict[str, None] = {}
    for source in sources:
        path = Path(source)
        if source == "-":
            names = [line.rstrip("\n") for line in listed if line.strip()]
        elif path.is_dir():
            files = (file for file in path.rglob("*") if file.suffix.lower() in PHOTO_EXTENSIONS)
            inside = (file.relative_to(path).as_posix() for file in files if not file.is_dir())
            brought, left = split_system_files(inside)
            names = [str(path / name) for name in sorted(brought, key=_natural)]
            for sentence in describe_system_files(left):
                tell(f"{show_name(source)}: {sentence}")
        # Path.glob takes no absolute pattern.
        elif has_magic(source) and not path.exists():
            names = sorted(glob(source, recursive=True), key=_natural)  # noqa: PTH207
        else:
            names = [source]
        if not names:
            raise InputError(f"{show_name(source)} holds no photo")
        found |= dict.fromkeys(names)
    if not found:
        raise InputError("name photos, folders, patterns, or - for a list of paths")
    return list(found)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort im2 before im10."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", name)]


def read_list(stream: BinaryIO) -> Iterator[str]:
    """Read a list of paths as programs write it: a line each, of Unix or Windows, or NUL between.

    Names need not be UTF-8; a name that really ends in a carriage return is kept where it exists.
    """
    data = stream.read().removeprefix(codecs.BOM_UTF8)
    for line in data.split(b"\0" if b"\0" in data else b"\n"):
        name = os.fsdecode(line)
        yield name if Path(name).exists() else name.removesuffix("\r")


def predict(
    tagger: Tagger, names: Sequence[str], backend: Backend = "sequential", done: int = 0
) -> Iterator[tuple[str, Tags]]:
    """Tag files batch by batch, with a progress bar on a terminal.

    Args:
        tagger: The model.
        names: The files.
        backend: Of `run_in_order`; each worker loads the model once.
        done: How many of the files are not to be tagged again.
    """
    many = len(names) >= MANY  # also where few are left: the digits are the same runtime's
    if backend == "sequential":
        work = partial(_tag_files, accelerate_tagger(tagger) if many else tagger)
    else:
        work = partial(_tag_in_worker, tagger.files, many, Path.cwd())
    parts = [names[start : start + BATCH] for start in range(done, len(names), BATCH)]
    with tqdm(total=len(names), initial=done, unit="photo", disable=None) as bar:
        for part, tags in zip(parts, run_in_order(work, parts, backend), strict=True):
            bar.update(len(part))
            yield from zip(part, tags, strict=True)


def _tag_files(tagger: Tagger, names: Sequence[str]) -> list[Tags]:
    return tag_photos(tagger, [read_photo(name) for name in names])


def _tag_in_worker(
    files: tuple[Path, ...], many: bool, folder: Path, names: Sequence[str]
) -> list[Tags]:
    with LOADING:
        tagger = _load(files, many)
    found = _tag_files(tagger, [str(folder / name) for name in names])
    # The pixels would be most of what is sent back.
    return [replace(tags, pixels=None) for tags in found]


@cache
def _load(files: tuple[Path, ...], many: bool) -> Tagger:
    model, thresholds = files
    tagger = load_tagger(model, thresholds)
    return accelerate_tagger(tagger) if many else tagger


def show_predictions(
    tagger: Tagger,
    names: Sequence[str],
    format_: str,
    tell: Callable[[str], object],
    backend: Backend = "sequential",
) -> None:
    """Write what is said of photos to the standard output, each as it comes, or one document.

    A table is in the terminal's encoding, what programs read is UTF-8.

    Args:
        tagger: The model.
        names: Of `order_names`.
        format_: Of `FORMATS`.
        tell: Is told of photos that cannot be read, where the format does not show them.
        backend: Of `predict`.

    Raises:
        InputError: Not one could be read.
    """
    encoding = sys.stdout.encoding if format_ == "table" else "utf-8"

    def write(text: str) -> None:
        sys.stdout.buffer.write(text.encode(encoding, "backslashreplace"))
        sys.stdout.flush()

    told = tell if format_ != "table" else lambda text: None
    lines: list[str] = []
    keep = lines.append if format_ in DOCUMENTS else write
    readable = _write_lines(tagger, names, format_, keep, told, backend)
    if format_ in DOCUMENTS:
        for part in DOCUMENTS[format_](names, tagger.labels, lines):
            write(part)
    _check_readable(readable)


def write_predictions(
    tagger: Tagger,
    names: Sequence[str],
    format_: str,
    tell: Callable[[str], object],
    output: Path,
    resume: bool,
    backend: Backend = "sequential",
) -> None:
    """Write what is said of photos to a file, so that a killed run can go on.

    They are written as they come, beside `output`, to a file that is renamed at the end, or of
    which a document is made.

    Args:
        tagger: The model.
        names: Of `order_names`.
        format_: Of `FORMATS`.
        tell: Is told of photos that cannot be read, and of where it goes on.
        output: A file that does not exist yet.
        resume: Whether to go on where a run of the same photos, model and format was killed.
        backend: Of `predict`.

    Raises:
        InputError: There is something to go on with, but `resume` is not set; another process
            writes the same; or not one photo could be read.
    """
    unfinished = unfinished_of(output, names, format_, tagger.files)
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    left = unfinished.exists()
    with unfinished.open("ab+") as file:
        _take(file, unfinished)
        if left and not resume:
            raise InputError(
                f"{unfinished} is left of a killed run: add --resume to go on, or remove it"
            )
        done = _cut(file)
        if resume:
            tell(
                f"going on after {done} lines" if done else "nothing to go on with: from the start"
            )

        def write(text: str) -> None:
            file.write(text.encode())
            file.flush()

        readable = _write_lines(tagger, names, format_, write, tell, backend, done)
        _finish(tagger, names, format_, unfinished, output)
    _check_readable(readable)


def _take(file: BinaryIO, path: Path) -> None:
    """Hold an unfinished file until it is closed; one that another process holds is refused."""
    try:
        _lock(file)
        mine = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        mine = False
    if not mine:  # or it has become the output meanwhile
        raise InputError(f"another process writes {path}: wait for its end")


def _lock(file: BinaryIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # some network file systems have no locks
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise


def _finish(
    tagger: Tagger, names: Sequence[str], format_: str, unfinished: Path, output: Path
) -> None:
    if format_ in DOCUMENTS:
        with (
            unfinished.open(encoding="utf-8", newline="\n") as lines,
            replace_file(output) as temporary,
            temporary.open("w", encoding="utf-8", newline="\n") as document,
        ):
            document.writelines(DOCUMENTS[format_](names, tagger.labels, lines))
        unfinished.unlink()
    else:
        unfinished.replace(output)


def unfinished_of(
    output: Path, names: Sequence[str], format_: str, model_files: Sequence[Path]
) -> Path:
    """Name the file that an output grows in: another one for other photos, format or model."""
    digest = hashlib.sha256()
    for name in names:  # one by one: a copy of all names would grow with the photos
        digest.update(os.fsencode(name) + b"\0")
    key = content_key([format_, digest.hexdigest()], model_files)
    return output.with_name(f"{output.name}.{key}.partial")


def _cut(file: BinaryIO) -> int:
    """Count a file's whole lines, and cut off one that was not written to its end."""
    lines = whole = 0
    file.seek(0)
    for line in file:
        if line.endswith(b"\n"):
            lines, whole = lines + 1, whole + len(line)
    file.truncate(whole)
    file.seek(whole)
    return lines


def _write_lines(
    tagger: Tagger,
    names: Sequence[str],
    format_: str,
    write: Callable[[str], object],
    tell: Callable[[str], object],
    backend: Backend,
    done: int = 0,
) -> bool:
    """Write the lines that come after those that are done, and say if a photo could be read."""
    first, line = FORMATS[format_](names, tagger.labels)
    if first and not done:
        write(first)
    done = max(done - bool(first), 0)
    readable = done > 0
    for name, tags in predict(tagger, names, backend, done):
        write(line(name, tags))
        if tags.error:
            tell(f"{show_name(name)}: {show_name(tags.error)}")
        readable |= not tags.error
    return readable


def _check_readable(readable: bool) -> None:
    if not readable:
        raise InputError("not one of these files could be read as a photo")
