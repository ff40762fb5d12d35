"""Prediction of labels for photos passed on the command line."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from tqdm import tqdm

from phototag.apps.formats import COLUMNS, Row, print_rows, show_name, write_rows
from phototag.apps.photo_files import hash_photo
from phototag.base.errors import InputError
from phototag.base.files import content_key, replace_file
from phototag.base.parallel import Backend, run_in_order
from phototag.serving.tagger import (
    BATCH,
    Tagger,
    accelerate_tagger,
    load_tagger,
    read_photo,
    tag_photos,
)

LOADING = Lock()  # prevents threads from loading the shared model more than once
MANY = 200  # for this many photos or more, ONNX Runtime saves more time than the export takes


def predict(
    tagger: Tagger, names: Sequence[str], backend: Backend = "sequential", done: int = 0
) -> Iterator[Row]:
    """Predict the labels of image files in batches; show a progress bar in a terminal.

    Yields one row per file, without the key `model_key` (see `phototag.apps.formats`).

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
        for rows in run_in_order(work, parts, backend):
            bar.update(len(rows))
            yield from rows


def _tag_files(tagger: Tagger, names: Sequence[str]) -> list[Row]:
    photos = [read_photo(name) for name in names]
    return [
        {
            "labels": tags.labels,
            "scores": tags.scores,
            "error": show_name(tags.error) if tags.error else None,
            "familiarity": tags.familiarity,
            "sha256": hash_photo(photo) if isinstance(photo, bytes) else None,
        }
        for photo, tags in zip(photos, tag_photos(tagger, photos), strict=True)
    ]


def _tag_in_worker(
    files: tuple[Path, ...], many: bool, folder: Path, names: Sequence[str]
) -> list[Row]:
    with LOADING:
        tagger = _load(files, many)
    return _tag_files(tagger, [str(folder / name) for name in names])


@cache
def _load(files: tuple[Path, ...], many: bool) -> Tagger:
    model, thresholds = files
    tagger = load_tagger(model, thresholds)
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
        """Print each prediction as soon as it is made; return whether any photo could be read."""
        return print_rows(self.format, self.names, self.tagger.labels, self.predict_rows())

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
            done = cut_last_line(file)
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
            any_readable = write_rows(
                self.format, self.names, self.tagger.labels, read_rows(lines), document.write
            )
        unfinished.unlink()
        return any_readable

    def unfinished_path(self, output: Path) -> Path:
        """Return the path of the temporary file, whose name contains a hash of photos and model."""
        # The columns are part of the key, because older versions wrote rows with fewer columns.
        key = content_key([*COLUMNS, *self.names], self.tagger.files)
        return output.with_name(f"{output.name}.{key}.partial")

    def predict_rows(self, done: int = 0) -> Iterator[Row]:
        """Yield one row for each photo after the first `done` photos; report unreadable photos."""
        key = model_key(self.tagger.files)
        rows = predict(self.tagger, self.names, self.backend, done)
        for name, row in zip(self.names[done:], rows, strict=True):
            if row["error"] and self.format != "table":  # the format `table` contains the message
                self.report(f"{show_name(name)}: {row['error']}")
            yield row | {"model_key": key}


def model_key(files: Iterable[Path]) -> str:
    """Return a hash of a model file and its thresholds file, which identifies the model."""
    return content_key("", files)


def read_rows(file: BinaryIO) -> Iterator[Row]:
    """Yield the rows in a temporary file of JSON lines.

    Raises:
        InputError: A line is damaged.
    """
    for number, line in enumerate(file, start=1):
        try:
            row = json.loads(line)
            is_row = {"labels", "scores", "error", "sha256", "model_key"} <= row.keys()
        except (ValueError, AttributeError, RecursionError):
            is_row = False
        if not is_row:
            raise InputError(f"{file.name}:{number} is damaged: remove this file, and try again")
        yield row


def cut_last_line(file: BinaryIO) -> int:
    """Remove the last line if it is incomplete, and return the number of complete lines."""
    lines = size = 0
    file.seek(0)
    for line in file:
        if line.endswith(b"\n"):
            lines, size = lines + 1, size + len(line)
    file.truncate(size)
    return lines
