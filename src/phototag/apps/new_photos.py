"""Addition of the predictions for new photos to an output file: `phototag predict --new`.

A photo is new if no row of the output has the SHA-256 hash of its content, so a photo that was
moved or renamed is not new. The rows of new photos are first appended to a temporary file next to
the output, from which the next run continues if this run is killed. At the end, the output is
replaced by a complete new file.
"""

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from filelock import FileLock, Timeout
from tqdm import tqdm

from phototag.apps.formats import COLUMNS, FORMATS, join_cells, show_bytes, show_name
from phototag.apps.photo_files import find_photos, hash_photo
from phototag.apps.predictions import PredictionJob, cut_last_line, model_key
from phototag.base.errors import InputError
from phototag.base.files import replace_file, report_failed_write
from phototag.base.parallel import Backend, run_in_order
from phototag.importers.table_files import PREDICTED
from phototag.serving.tagger import load_tagger, read_photo


class Entry(NamedTuple):
    """The photo of a row: its path, the hash of its content, and why it could not be read."""

    file: str
    sha256: str | None
    error: str | None


@dataclass(frozen=True)
class GrowingOutput:
    """An output of `phototag predict` to which rows are added.

    Attributes:
        path: CSV or JSON Lines file. It need not exist.
        format: `csv` or `jsonl`.
    """

    path: Path
    format: str

    def read_rows(self, key: str) -> Iterator[dict[str, Any]]:
        """Yield the rows as dicts with the columns of the CSV, or the keys of the JSON objects.

        Raises:
            InputError: The file was written with a model that has another `model_key` than `key`,
                by an older version, or by another program.
        """
        for place, row in self._parse():
            if row.keys() >= set(PREDICTED) and "sha256" not in row:
                raise InputError(
                    f"{self.path} has no column sha256, because an older version of phototag "
                    "wrote it: pass a new output file"
                )
            if not row.keys() >= set(COLUMNS) or not isinstance(row["file"], str):
                raise InputError(
                    f"{place}: not a row that `phototag predict` wrote: pass a new output file"
                )
            if row["model_key"] != key:
                raise InputError(
                    f"{self.path} was written with another model: pass a new output file, or "
                    "remove this one to predict the labels of all photos again"
                )
            yield row

    def _parse(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the place of each row for error messages, and the row."""
        if not self.path.exists():
            return
        line = 0
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                if self.format == "jsonl":
                    for line, text in enumerate(file, start=1):
                        row = json.loads(text)
                        yield f"{self.path}, row {line}", row if isinstance(row, dict) else {}
                    return
                header = self.read_header()
                for line, cells in enumerate(csv.reader(file, strict=True), start=1):
                    if len(cells) != len(header):
                        raise ValueError(f"{len(cells)} cells, but the header has {len(header)}")
                    if line > 1:
                        yield f"{self.path}, row {line}", dict(zip(header, cells, strict=True))
        except (csv.Error, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.path}, after row {line}: not {self.format} ({error}): pass a new "
                "output file"
            ) from None

    def read_header(self) -> list[str]:
        """Return the columns of the CSV, or [] if the file is missing, empty or not a CSV."""
        if self.format != "csv" or not self.path.exists():
            return []
        with self.path.open(encoding="utf-8", newline="") as file:
            return next(csv.reader(file), [])

    def replace(
        self,
        labels: Sequence[str],
        drop: Callable[[Entry], bool],
        moved: Mapping[Entry, str],
        names: Sequence[str],
        rows: Iterable[dict[str, Any]],
    ) -> None:
        """Replace the file: drop some rows, change the paths of others, and add rows.

        Args:
            labels: Labels of the model; [] if no rows are added.
            drop: Function that returns whether to drop a row.
            moved: New paths of photos.
            names: Paths of the photos to add.
            rows: Rows to add, see `phototag.apps.formats`.
        """
        header = self.read_header()
        with (
            replace_file(self.path) as temporary,
            temporary.open("w", encoding="utf-8", newline="\n") as document,
        ):
            if self.path.exists():
                shutil.copymode(self.path, temporary)
            texts = FORMATS[self.format](names, labels, rows)
            if self.format == "csv":
                first = next(iter(texts))
                document.write(join_cells(header) if header else first)
            for _, row in self._parse():
                entry = read_entry(row)
                if not drop(entry):
                    row["file"] = moved.get(entry, entry.file)
                    is_csv = self.format == "csv"
                    line = json.dumps(row, ensure_ascii=False) + "\n"
                    document.write(join_cells(row.values()) if is_csv else line)
            document.writelines(texts)


def read_entry(row: Mapping[str, Any]) -> Entry:
    """Return the photo of a row. Empty cells of a CSV become None."""
    return Entry(show_bytes(row["file"]), row["sha256"] or None, row["error"] or None)


def predict_new(
    output: GrowingOutput,
    sources: Sequence[str],
    stdin: BinaryIO,
    files: tuple[Path, Path],
    report: Callable[[str], object],
    warn: Callable[[str], object],
    backend: Backend = "sequential",
) -> None:
    """Predict the labels of the photos that have no row in an output, and add their rows.

    Photos that could not be read are tried again in each call, and their row is replaced. If
    nothing changes, nothing is printed and nothing is written. If another process adds rows to the
    same output, only a message is printed.

    Args:
        output: Output to which rows are added.
        sources: Photos, folders and `-`, see `find_photos`. Folders may be empty.
        stdin: Stream with a list of paths.
        files: Model file and thresholds file.
        report: Function that prints what was done.
        warn: Function that prints a message about a photo that cannot be read.
        backend: Backend passed to `run_in_order`.

    Raises:
        InputError: A source does not exist, or `output` cannot be extended (see `read_rows`).
    """
    path = output.path
    with report_failed_write(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            report(f"{path}: another process is adding photos to this file: nothing was done")
            return
        try:
            _add_rows(output, sources, stdin, files, report, warn, backend)
        finally:
            lock.release()


def _add_rows(
    output: GrowingOutput,
    sources: Sequence[str],
    stdin: BinaryIO,
    files: tuple[Path, Path],
    report: Callable[[str], object],
    warn: Callable[[str], object],
    backend: Backend,
) -> None:
    key = model_key(files)
    index = [read_entry(row) for row in output.read_rows(key)]
    known = {entry.sha256 for entry in index if not entry.error}
    hashes = _hash_photos(sources, stdin, report, warn)
    unfinished = output.path.with_name(f"{output.path.name}.{key}.partial")
    with unfinished.open("ab+") as file:
        cut_last_line(file)
        done = known | {entry.sha256 for entry in _read_entries(file) if not entry.error}
        new: dict[str, str] = {}  # hash, or path of an unreadable file -> first path
        for name, sha256 in hashes.items():
            if sha256 not in done:
                new.setdefault(sha256 or _locate(name), name)
        labels: list[str] = []
        if new or file.tell():
            tagger = load_tagger(*files)
            labels = tagger.labels
            header = output.read_header()
            if header and join_cells(header) != next(iter(FORMATS["csv"]([], labels, []))):
                raise InputError(
                    f"{output.path} has other columns than `phototag predict` writes: pass a new "
                    "output file"
                )
            reported = {f"{show_name(entry.file)}: {entry.error}" for entry in index}
            job = PredictionJob(
                tagger,
                list(new.values()),
                output.format,
                lambda message: message in reported or warn(message),
                backend,
            )
            for name, row in zip(job.names, job.predict_rows(), strict=True):
                file.write(json.dumps({"file": name} | row).encode() + b"\n")
                file.flush()
        entries = _read_entries(file)
        places = [_locate(entry.file) for entry in entries]
        last = {place: number for number, place in enumerate(places)}
        # The photos of a run that was killed after it had replaced the output are in the output.
        # A photo that a killed run could not read was tried again.
        keep = [
            last[place] == number if entry.error else entry.sha256 not in known
            for number, (entry, place) in enumerate(zip(entries, places, strict=True))
        ]
        added = set(compress(entries, keep)) - set(index)
        moved = _find_moved(index, hashes)
        if added or moved:
            tried = {*places, *(entry.sha256 for entry in entries if entry.sha256)}
            file.seek(0)
            output.replace(
                labels,
                lambda entry: (
                    bool(entry.error) and not tried.isdisjoint((_locate(entry.file), entry.sha256))
                ),
                moved,
                [entry.file for entry in compress(entries, keep)],
                compress(map(json.loads, file), keep),
            )
            readable = sum(not entry.error for entry in added)
            counts = f"{readable}, moved: {len(moved)}, unreadable: {len(added) - readable}"
            report(f"{output.path}: photos added: {counts}")
    unfinished.unlink()


def _locate(file: str) -> str:
    """Return an absolute path, so that different paths to a file are equal."""
    return os.path.normpath(Path.cwd() / file)


def _hash_photos(
    sources: Sequence[str],
    stdin: BinaryIO,
    report: Callable[[str], object],
    warn: Callable[[str], object],
) -> dict[str, str | None]:
    """Return path -> hash of the content of each photo; None if the file cannot be read."""
    for source in sources:
        if source != "-" and not os.path.lexists(source):
            raise InputError(f"{show_name(source)} does not exist: pass other files or folders")
    names = []
    for name in find_photos(sources, stdin, lambda _: None, allow_empty=True):
        if os.path.lexists(name):
            names.append(name)
        else:
            warn(f"{show_name(name)} does not exist")
    hashes = run_in_order(_hash_file, names, "threading")
    bar = tqdm(hashes, "hash", len(names), unit="photo", disable=None)
    return dict(zip(names, bar, strict=True))


def _hash_file(name: str) -> str | None:
    return hash_photo(read_photo(name))


def _read_entries(file: BinaryIO) -> list[Entry]:
    """Return the photos in the temporary file; the position is then at its end."""
    file.seek(0)
    return [read_entry(json.loads(line)) for line in file]


def _find_moved(index: Iterable[Entry], hashes: Mapping[str, str | None]) -> dict[Entry, str]:
    """Return the new paths of photos whose file no longer exists.

    A photo is found by its content, in a file that has no row.
    """
    taken = {_locate(entry.file) for entry in index}
    free: dict[str | None, list[str]] = {}
    for name, sha256 in reversed(hashes.items()):
        if _locate(show_bytes(name)) not in taken:
            free.setdefault(sha256, []).append(show_bytes(name))
    return {
        entry: free[entry.sha256].pop()
        for entry in index
        if not entry.error and free.get(entry.sha256) and not os.path.lexists(entry.file)
    }
