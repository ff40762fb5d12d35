"""Prediction of labels for photos passed on the command line."""

import codecs
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from tqdm import tqdm

from phototag.apps.formats import FORMATS, Row, show_name
from phototag.base.errors import InputError
from phototag.base.files import content_key, replace_file
from phototag.base.parallel import Backend, run_in_order
from phototag.decoding.formats import split_photos
from phototag.decoding.sources import list_files
from phototag.decoding.system_files import split_system_files
from phototag.serving.tagger import (
    BATCH,
    Tagger,
    Tags,
    accelerate_tagger,
    load_tagger,
    read_photo,
    tag_photos,
)

LOADING = Lock()  # prevents threads from loading the shared model more than once
MANY = 200  # for this many photos or more, ONNX Runtime saves more time than the export takes


def find_photos(
    sources: Iterable[str], stdin: BinaryIO, report: Callable[[str], object] = print
) -> list[str]:
    """Return the paths of all photos in the given files and folders, without duplicates.

    Args:
        sources: Paths of files and folders (searched recursively), or `-` to read paths from stdin.
        stdin: Stream with a list of paths, one per line or separated by NUL.
        report: Function that prints a message about files in folders that are not photos.

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
        if not names:
            raise InputError(f"{show_name(source)}: no photos found: pass other files or folders")
        found |= dict.fromkeys(names)
    return list(found)


def read_paths(stream: BinaryIO) -> Iterator[str]:
    """Yield the paths in a stream, separated by line breaks (Unix or Windows) or by NUL."""
    data = stream.read().removeprefix(codecs.BOM_UTF8)
    lines = data.split(b"\0") if b"\0" in data else data.replace(b"\r\n", b"\n").split(b"\n")
    yield from (os.fsdecode(line) for line in lines if line.strip())


def predict(
    tagger: Tagger, names: Sequence[str], backend: Backend = "sequential", done: int = 0
) -> Iterator[Tags]:
    """Predict the labels of image files in batches; show a progress bar in a terminal.

    Args:
        tagger: Model used for prediction.
        names: Paths of the image files.
        backend: Backend passed to `run_in_order`; each worker loads the model once.
        done: Number of files at the start of `names` to skip, because they were already predicted.
    """
    # Files already predicted are counted too, so that a resumed run uses the same runtime.
    many = len(names) >= MANY
    if backend == "sequential":
        work = partial(_tag_files, accelerate_tagger(tagger) if many else tagger)
    else:
        work = partial(_tag_in_worker, tagger.files, many, Path.cwd())
    parts = [names[start : start + BATCH] for start in range(done, len(names), BATCH)]
    with tqdm(total=len(names), initial=done, unit="photo", disable=None) as bar:
        for tags in run_in_order(work, parts, backend):
            bar.update(len(tags))
            yield from tags


def _tag_files(tagger: Tagger, names: Sequence[str]) -> list[Tags]:
    return tag_photos(tagger, [read_photo(name) for name in names])


def _tag_in_worker(
    files: tuple[Path, ...], many: bool, folder: Path, names: Sequence[str]
) -> list[Tags]:
    with LOADING:
        tagger = _load(files, many)
    found = _tag_files(tagger, [str(folder / name) for name in names])
    # The output does not need the pixels, and sending them between processes would be slow.
    return [replace(tags, pixels=None) for tags in found]


@cache
def _load(files: tuple[Path, ...], many: bool) -> Tagger:
    tagger = load_tagger(*files)
    return accelerate_tagger(tagger) if many else tagger


@dataclass(frozen=True)
class PredictionJob:
    """A model, the photos to predict labels for, and the format of the output.

    Attributes:
        tagger: Model used for prediction.
        names: Paths returned by `find_photos`.
        format: Name of the output format, a key of `FORMATS`.
        report: Function that prints a message, for example about an unreadable photo.
        backend: Backend passed to `predict`.
    """

    tagger: Tagger
    names: Sequence[str]
    format: str
    report: Callable[[str], object]
    backend: Backend = "sequential"

    def print(self) -> bool:
        """Print each prediction as soon as it is made; return whether any photo could be read.

        The table is written in the encoding of the terminal, and the other formats in UTF-8.
        """
        encoding = sys.stdout.encoding if self.format == "table" else "utf-8"

        def write(text: str) -> None:
            sys.stdout.buffer.write(text.encode(encoding, "backslashreplace"))
            sys.stdout.flush()

        return self._format(self.predict_rows(), write)

    def write(self, output: Path, resume: bool) -> bool:
        """Write predictions to a file; return whether any photo could be read.

        Predictions are first appended as JSON lines to a temporary file next to `output`, so that
        a killed run can be resumed. At the end, this file is converted to the output format.

        Args:
            output: Path of the file to write; the file must not exist.
            resume: True to continue a killed run that had the same photos and model.

        Raises:
            InputError: `resume` is false, but a killed run left its temporary file.
        """
        unfinished = self.unfinished_path(output)
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        if unfinished.exists() and not resume:
            raise InputError(
                f"{unfinished} was left by a killed run or is being written: add --resume to "
                "continue a killed run, or remove the file"
            )
        with unfinished.open("ab+") as file:
            done = _cut_last_line(file)
            if resume:
                self.report(f"resumed: {done} photos were already predicted")
            for row in self.predict_rows(done):
                file.write(json.dumps(row).encode() + b"\n")
                file.flush()
        with (
            unfinished.open("rb") as lines,
            replace_file(output) as temporary,
            temporary.open("w", encoding="utf-8", newline="\n") as document,
        ):
            any_readable = self._format(map(json.loads, lines), document.write)
        unfinished.unlink()
        return any_readable

    def unfinished_path(self, output: Path) -> Path:
        """Return the path of the temporary file, whose name contains a hash of photos and model."""
        key = content_key("\0".join(self.names), self.tagger.files)
        return output.with_name(f"{output.name}.{key}.partial")

    def predict_rows(self, done: int = 0) -> Iterator[Row]:
        """Yield one row for each photo after the first `done` photos; report unreadable photos."""
        predicted = predict(self.tagger, self.names, self.backend, done)
        for name, tags in zip(self.names[done:], predicted, strict=True):
            error = show_name(tags.error) if tags.error else None
            if error and self.format != "table":  # the format `table` contains the message
                self.report(f"{show_name(name)}: {error}")
            yield {"labels": tags.labels, "scores": tags.scores, "error": error}

    def _format(self, rows: Iterable[Row], write: Callable[[str], object]) -> bool:
        any_readable = False

        def watch() -> Iterator[Row]:
            nonlocal any_readable
            for row in rows:
                any_readable |= not row["error"]
                yield row

        for text in FORMATS[self.format](self.names, self.tagger.labels, watch()):
            write(text)
        return any_readable


def _cut_last_line(file: BinaryIO) -> int:
    """Remove the last line if it is incomplete, and return the number of complete lines."""
    lines = size = 0
    file.seek(0)
    for line in file:
        if line.endswith(b"\n"):
            lines, size = lines + 1, size + len(line)
    file.truncate(size)
    return lines
