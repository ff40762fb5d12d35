"""Prediction of labels for the photos that a user names, written as they are predicted."""

import codecs
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from glob import glob, has_magic
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from filelock import FileLock, Timeout
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

LOADING = Lock()  # held while a thread loads the network that all threads share
MANY = 200  # photos for which ONNX Runtime saves more time than the export takes
Report = Callable[[str], object]


def find_photos(
    sources: Iterable[str], listed: Iterable[str], report: Report = lambda text: None
) -> list[str]:
    """Return the photos that sources name, without repetitions, in the given order.

    Args:
        sources: Files, folders (searched recursively for known extensions), patterns, or `-`.
        listed: Paths to use for `-`.
        report: Receives a sentence about the system files in a folder, which are ignored.

    Raises:
        InputError: A folder or pattern has no photo, or no photo is named.
    """
    found: dict[str, None] = {}
    for source in sources:
        path = Path(source)
        if source == "-":
            names = [line.rstrip("\n") for line in listed if line.strip()]
        elif path.is_dir():
            files = (file for file in path.rglob("*") if file.suffix.lower() in PHOTO_EXTENSIONS)
            inside = (file.relative_to(path).as_posix() for file in files if not file.is_dir())
            photos, system_files = split_system_files(inside)
            names = [str(path / name) for name in sorted(photos, key=_natural_key)]
            for sentence in describe_system_files(system_files):
                report(f"{show_name(source)}: {sentence}")
        # Path.glob does not accept absolute patterns.
        elif has_magic(source) and not path.exists():
            names = sorted(glob(source, recursive=True), key=_natural_key)  # noqa: PTH207
        else:
            names = [source]
        if not names:
            raise InputError(f"{show_name(source)}: no photos found: give other files or folders")
        found |= dict.fromkeys(names)
    if not found:
        raise InputError("no photos given: give files, folders, patterns, or - for a list of paths")
    return list(found)


def _natural_key(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts im2 before im10."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", name)]


def read_path_list(stream: BinaryIO) -> Iterator[str]:
    """Yield the paths of a list, one per line (Unix or Windows) or separated by NUL.

    Paths may have bytes that are not UTF-8. A trailing carriage return is removed unless a file of
    that name exists.
    """
    data = stream.read().removeprefix(codecs.BOM_UTF8)
    for line in data.split(b"\0" if b"\0" in data else b"\n"):
        name = os.fsdecode(line)
        yield name if Path(name).exists() else name.removesuffix("\r")


def predict(
    tagger: Tagger, names: Sequence[str], backend: Backend = "sequential", done: int = 0
) -> Iterator[tuple[str, Tags]]:
    """Predict the labels of files in batches, with a progress bar on a terminal.

    Args:
        tagger: Model.
        names: Paths of the files.
        backend: Backend of `run_in_order`; each worker loads the model once.
        done: Number of files to skip at the start.
    """
    # The number of all files decides, so that a resumed run uses the same runtime.
    many = len(names) >= MANY
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
    # The output does not need the pixels, which would be most of the data sent back.
    return [replace(tags, pixels=None) for tags in found]


@cache
def _load(files: tuple[Path, ...], many: bool) -> Tagger:
    tagger = load_tagger(*files)
    return accelerate_tagger(tagger) if many else tagger


@dataclass(frozen=True)
class PredictionJob:
    """Photos to label, and the format of the output.

    Attributes:
        tagger: Model.
        names: Paths returned by `order_names`.
        format: Key of `FORMATS`.
        report: Receives a message for each unreadable photo and about resuming.
        backend: Backend of `predict`.
    """

    tagger: Tagger
    names: Sequence[str]
    format: str
    report: Report
    backend: Backend = "sequential"

    def print(self) -> None:
        """Print predictions line by line, or as one document at the end.

        A table has the encoding of the terminal; the other formats are UTF-8.

        Raises:
            InputError: No photo could be read.
        """
        encoding = sys.stdout.encoding if self.format == "table" else "utf-8"

        def write(text: str) -> None:
            sys.stdout.buffer.write(text.encode(encoding, "backslashreplace"))
            sys.stdout.flush()

        lines: list[str] = []
        any_readable = self._write_lines(lines.append if self.format in DOCUMENTS else write)
        for part in self._make_document(lines) if self.format in DOCUMENTS else ():
            write(part)
        _check_readable(any_readable)

    def write(self, output: Path, resume: bool) -> None:
        """Write predictions to a file, so that a killed run can be resumed.

        Lines are appended to an unfinished file next to `output`. At the end it is renamed to
        `output` or converted to a document.

        Args:
            output: File to write, which must not exist.
            resume: Continue a killed run of the same photos, model and format.

        Raises:
            InputError: A killed run left an unfinished file and `resume` is false, another process
                writes it, or no photo could be read.
        """
        unfinished = self.unfinished_path(output)
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        lock = Path(f"{unfinished}.lock")
        try:
            with FileLock(lock, timeout=0):
                any_readable = self._write_unfinished(unfinished, resume)
                if self.format in DOCUMENTS:
                    self._convert(unfinished, output)
                else:
                    unfinished.replace(output)
                lock.unlink(missing_ok=True)
        except Timeout:
            raise InputError(
                f"another process writes {unfinished}: wait until it has ended"
            ) from None
        _check_readable(any_readable)

    def unfinished_path(self, output: Path) -> Path:
        """Return the path of the unfinished file, which depends on photos, format and model."""
        digest = hashlib.sha256()
        for name in self.names:  # hashed one by one to save memory
            digest.update(os.fsencode(name) + b"\0")
        key = content_key([self.format, digest.hexdigest()], self.tagger.files)
        return output.with_name(f"{output.name}.{key}.partial")

    def _write_unfinished(self, unfinished: Path, resume: bool) -> bool:
        if unfinished.exists() and not resume:
            raise InputError(
                f"{unfinished} was left by a killed run: add --resume to continue, or remove it"
            )
        with unfinished.open("ab+") as file:
            done = _cut_last_line(file)
            if resume:
                self.report(f"resumed after {done} lines" if done else "nothing to resume")

            def write(text: str) -> None:
                file.write(text.encode())
                file.flush()

            return self._write_lines(write, done)

    def _write_lines(self, write: Callable[[str], object], done: int = 0) -> bool:
        """Write the lines after the first `done` ones; return whether any photo was readable."""
        header, format_line = FORMATS[self.format](self.names, self.tagger.labels)
        if header and not done:
            write(header)
        done = max(done - bool(header), 0)
        any_readable = done > 0
        for name, tags in predict(self.tagger, self.names, self.backend, done):
            write(format_line(name, tags))
            if tags.error and self.format != "table":  # a table has the message itself
                self.report(f"{show_name(name)}: {show_name(tags.error)}")
            any_readable |= not tags.error
        return any_readable

    def _make_document(self, lines: Iterable[str]) -> Iterator[str]:
        return DOCUMENTS[self.format](self.names, self.tagger.labels, lines)

    def _convert(self, unfinished: Path, output: Path) -> None:
        with (
            unfinished.open(encoding="utf-8", newline="\n") as lines,
            replace_file(output) as temporary,
            temporary.open("w", encoding="utf-8", newline="\n") as document,
        ):
            document.writelines(self._make_document(lines))
        unfinished.unlink()


def _cut_last_line(file: BinaryIO) -> int:
    """Remove an incomplete last line and return the number of complete lines."""
    lines = size = 0
    file.seek(0)
    for line in file:
        if line.endswith(b"\n"):
            lines, size = lines + 1, size + len(line)
    file.truncate(size)
    file.seek(size)
    return lines


def _check_readable(any_readable: bool) -> None:
    if not any_readable:
        raise InputError("none of these files could be read as a photo: give photos")
