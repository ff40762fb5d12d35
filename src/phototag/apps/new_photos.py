"""Addition of the predictions for new photos to an output file: `phototag predict --new`.

A photo is new if no row of the output has the SHA-256 hash of its content. The rows of new photos
are first appended to a temporary file next to the output, from which the next run continues if this
run is killed. At the end, the output is replaced by a complete new file.
"""

import csv
import json
import os
import shutil
from collections.abc import Callable, Container, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout
from tqdm import tqdm

from phototag.apps.formats import COLUMNS, FORMATS, Row, join_cells, show_bytes, show_name
from phototag.apps.photo_files import find_photos, hash_photo
from phototag.apps.predictions import PredictionJob, cut_last_line, model_key, read_rows
from phototag.base.errors import InputError
from phototag.base.files import replace_file, report_failed_write
from phototag.base.parallel import Backend, run_in_order
from phototag.serving.tagger import load_tagger, read_photo


@dataclass(frozen=True)
class NewPhotosJob:
    """A model, and an output to which the predictions for new photos are added.

    Attributes:
        output: CSV or JSON Lines file. It need not exist.
        format: `csv` or `jsonl`.
        files: Model file and thresholds file.
        report: Function that prints what was done.
        warn: Function that prints a message about a photo that cannot be read.
        backend: Backend passed to `run_in_order`.
    """

    output: Path
    format: str
    files: tuple[Path, Path]
    report: Callable[[str], object]
    warn: Callable[[str], object]
    backend: Backend = "sequential"

    def add(self, sources: Sequence[str], stdin: BinaryIO) -> None:
        """Predict the labels of the photos that have no row in the output, and add their rows.

        If nothing changes, nothing is printed and the output is not written. If another process
        adds rows to the same output, only a message is printed.

        Args:
            sources: Photos, folders and `-`, see `find_photos`. Folders may be empty.
            stdin: Stream with a list of paths.

        Raises:
            InputError: A source does not exist, or the output was written by another program or
                with another model.
        """
        with report_failed_write(self.output), ExitStack() as stack:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.output.with_name(f".{self.output.name}.lock"))
            try:
                stack.enter_context(lock.acquire(timeout=0))
            except Timeout:
                self.report(
                    f"{self.output}: another process is adding photos to this file: nothing was "
                    "done"
                )
                return
            self._add(sources, stdin)

    def _add(self, sources: Sequence[str], stdin: BinaryIO) -> None:
        key, tagger = model_key(self.files), load_tagger(*self.files)
        rows = {(row["file"], row["sha256"]) for row in self._read_rows(tagger.labels, key)}
        known = {sha256 for _, sha256 in rows}
        hashes = self._hash_photos(sources, stdin)
        photos: dict[str, str] = {}  # hash -> first path
        for name, sha256 in hashes.items():
            photos.setdefault(sha256, name)
        moved = _find_moved(rows, photos, {show_bytes(name): hashes[name] for name in hashes})
        unfinished = self.output.with_name(f"{self.output.name}.{key}.partial")
        with unfinished.open("ab+") as file:
            cut_last_line(file)
            done = known | {row["sha256"] for row in _read_unfinished(file, known)}
            new = [name for sha256, name in photos.items() if sha256 not in done]
            job = PredictionJob(tagger, new, self.format, self.warn, self.backend)
            for name, row in zip(new, job.predict_rows(), strict=True):
                file.write(json.dumps({"file": show_bytes(name)} | row).encode() + b"\n")
                file.flush()
            added = [(row["file"], row["error"]) for row in _read_unfinished(file, known)]
            if added or moved:
                unreadable = sum(bool(error) for _, error in added)
                counts = f"{len(added) - unreadable}, moved: {len(moved)}, unreadable: {unreadable}"
                names = [name for name, _ in added]
                texts = FORMATS[self.format](names, tagger.labels, _read_unfinished(file, known))
                self._replace(self._read_rows(tagger.labels, key), moved, set(names), texts)
                self.report(f"{self.output}: photos added: {counts}")
        unfinished.unlink()

    def _hash_photos(self, sources: Sequence[str], stdin: BinaryIO) -> dict[str, str]:
        """Return path -> hash of each photo that can be read."""
        for source in sources:
            if source != "-" and not os.path.lexists(source):
                raise InputError(f"{show_name(source)} does not exist: pass other files or folders")
        names = find_photos(sources, stdin, lambda _: None, allow_empty=True)
        results = run_in_order(_hash_file, names, "threading")
        bar = tqdm(results, "hash", len(names), unit="photo", disable=None)
        hashes: dict[str, str] = {}
        for name, result in zip(names, bar, strict=True):
            if isinstance(result, InputError):
                self.warn(f"{show_name(name)}: {result}")
            else:
                hashes[name] = result
        return hashes

    def _read_rows(self, labels: Sequence[str], key: str) -> Iterator[Row]:
        """Yield the rows of the output; raise an error if this model would not write them."""
        if not self.output.exists():
            return
        is_csv = self.format == "csv"
        try:
            with self.output.open(encoding="utf-8", newline="") as file:
                rows: Iterator[Row] = map(json.loads, file)
                if is_csv:
                    rows = reader = csv.DictReader(file, strict=True)
                    header = next(iter(FORMATS["csv"]([], labels, [])))
                    if reader.fieldnames and join_cells(reader.fieldnames) != header:
                        raise ValueError
                for row in rows:
                    # A row of a CSV with too many or too few cells has the key or the value None.
                    is_complete = not is_csv or None not in {*row, *row.values()}
                    if not is_complete or not row.keys() >= set(COLUMNS) or row["model_key"] != key:
                        raise ValueError
                    yield row
        except (csv.Error, AttributeError, ValueError):
            raise InputError(
                f"{self.output} was not written by this version of `phototag predict` with this "
                "model: pass a new output file, or remove this one to predict the labels of all "
                "photos again"
            ) from None

    def _replace(
        self,
        rows: Iterator[Row],
        moved: Mapping[tuple[str, str], str],
        names: Container[str],
        texts: Iterator[str],
    ) -> None:
        """Replace the output: change the paths of moved photos, and append the texts of new rows.

        Rows of unreadable photos are dropped if `names` contains their path.
        """
        with (
            replace_file(self.output) as temporary,
            temporary.open("w", encoding="utf-8", newline="\n") as document,
        ):
            if self.output.exists():
                shutil.copymode(self.output, temporary)
            if self.format == "csv":
                document.write(next(texts))
            for row in rows:
                row["file"] = moved.get((row["file"], row["sha256"]), row["file"])
                if row["error"] and row["file"] in names:
                    continue
                line = json.dumps(row, ensure_ascii=False) + "\n"
                document.write(join_cells(row.values()) if self.format == "csv" else line)
            document.writelines(texts)


def _find_moved(
    rows: Set[tuple[str, str]], photos: Mapping[str, str], hashes: Mapping[str, str]
) -> dict[tuple[str, str], str]:
    """Return the new paths of photos whose path in the output is missing or has another photo.

    `rows` are the paths and hashes in the output, `photos` maps hashes to paths, and `hashes` maps
    paths to hashes.
    """
    return {
        (file, sha256): show_bytes(photos[sha256])
        for file, sha256 in rows
        if sha256 in photos and (show_bytes(photos[sha256]), sha256) not in rows
        if (hashes[file] != sha256 if file in hashes else not os.path.lexists(file))
    }


def _read_unfinished(file: BinaryIO, known: Container[str]) -> Iterator[Row]:
    """Yield the rows in the temporary file whose photo is not in the output.

    If a run is killed after it has replaced the output, the output has these rows.
    """
    file.seek(0)
    for row in read_rows(file):
        if row["sha256"] and row["sha256"] not in known:
            yield row


def _hash_file(name: str) -> str | InputError:
    photo = read_photo(name)
    return photo if isinstance(photo, InputError) else hash_photo(photo)
