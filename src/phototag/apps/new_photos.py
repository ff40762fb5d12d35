"""Addition of the predictions for new photos to an output file: `phototag predict --new`.

A photo is new if no row of the output has the SHA-256 hash of its content, so a photo that was
moved or renamed is not new. The rows of new photos are first appended to a temporary file next to
the output, from which the next run continues if this run is killed. At the end, the output is
replaced by a complete new file.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from phototag.apps.formats import FORMATS, join_cells, show_bytes, show_name
from phototag.apps.growing_output import Entry, GrowingOutput, read_entry
from phototag.apps.photo_files import find_photos
from phototag.apps.photo_hashes import hash_photos, locate
from phototag.apps.predictions import PredictionJob, cut_last_line, model_key
from phototag.base.errors import InputError
from phototag.base.files import report_failed_write
from phototag.base.parallel import Backend
from phototag.serving.tagger import load_tagger


@dataclass(frozen=True)
class NewPhotosJob:
    """A model, and an output to which the predictions for new photos are added.

    Attributes:
        output: Output to which rows are added.
        files: Model file and thresholds file.
        report: Function that prints what was done.
        warn: Function that prints a message about a photo that cannot be read.
        backend: Backend passed to `run_in_order`.
    """

    output: GrowingOutput
    files: tuple[Path, Path]
    report: Callable[[str], object]
    warn: Callable[[str], object]
    backend: Backend = "sequential"

    def add(self, sources: Sequence[str], stdin: BinaryIO) -> None:
        """Predict the labels of the photos that have no row in the output, and add their rows.

        Photos that could not be read are tried again in each call, and their row is replaced. If
        nothing changes, nothing is printed and the output is not written. If another process adds
        rows to the same output, only a message is printed.

        Args:
            sources: Photos, folders and `-`, see `find_photos`. Folders may be empty.
            stdin: Stream with a list of paths.

        Raises:
            InputError: A source does not exist, or `output` cannot be extended (see `read_rows`).
        """
        path = self.output.path
        with report_failed_write(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_name(f".{path.name}.lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self.report(
                    f"{path}: another process is adding photos to this file: nothing was done"
                )
                return
            try:
                self._add(sources, stdin)
            finally:
                lock.release()

    def _add(self, sources: Sequence[str], stdin: BinaryIO) -> None:
        path, key = self.output.path, model_key(self.files)
        index = [read_entry(row) for row in self.output.read_rows(key)]
        known = {entry.sha256 for entry in index if entry.sha256 and not entry.error}
        names = self._find_existing(sources, stdin)
        hashes = hash_photos(names, path.with_name(f".{path.name}.hashes"))
        unfinished = path.with_name(f"{path.name}.{key}.partial")
        with unfinished.open("ab+") as file:
            cut_last_line(file)
            done = known | {entry.sha256 for entry in _read_entries(file) if not entry.error}
            new: dict[str, str] = {}  # hash, or path of an unreadable file -> first path
            for name, sha256 in hashes.items():
                if sha256 not in done:
                    new.setdefault(sha256 or locate(name), name)
            labels: list[str] = []
            if new or file.tell():
                labels = self._predict([*new.values()], index, file)
            entries = _read_entries(file)
            places = [locate(entry.file) for entry in entries]
            last = {place: number for number, place in enumerate(places)}
            # The photos of a run that was killed after it had replaced the output are in the
            # output. A photo that a killed run could not read was tried again.
            keep = [
                last[place] == number if entry.error else entry.sha256 not in known
                for number, (entry, place) in enumerate(zip(entries, places, strict=True))
            ]
            added = set(compress(entries, keep)) - set(index)
            moved = _find_moved(index, hashes)
            if added or moved:
                tried = {*places, *(entry.sha256 for entry in entries if entry.sha256)}
                file.seek(0)
                self.output.replace(
                    labels,
                    lambda entry: (
                        bool(entry.error)
                        and not tried.isdisjoint((locate(entry.file), entry.sha256))
                    ),
                    moved,
                    [entry.file for entry in compress(entries, keep)],
                    compress(map(json.loads, file), keep),
                )
                readable = sum(not entry.error for entry in added)
                counts = f"{readable}, moved: {len(moved)}, unreadable: {len(added) - readable}"
                self.report(f"{path}: photos added: {counts}")
        unfinished.unlink()

    def _find_existing(self, sources: Sequence[str], stdin: BinaryIO) -> list[str]:
        """Return the paths of the photos; raise an error if one of `sources` does not exist."""
        for source in sources:
            if source != "-" and not os.path.lexists(source):
                raise InputError(f"{show_name(source)} does not exist: pass other files or folders")
        names = []
        for name in find_photos(sources, stdin, lambda _: None, allow_empty=True):
            if os.path.lexists(name):
                names.append(name)
            else:
                self.warn(f"{show_name(name)} does not exist")
        return names

    def _predict(self, names: Sequence[str], index: Iterable[Entry], file: BinaryIO) -> list[str]:
        """Append the rows of photos to an open file; return the labels of the model.

        Messages about photos that have the same error in `index` are not printed again.
        """
        tagger = load_tagger(*self.files)
        header = self.output.read_header()
        if header and join_cells(header) != next(iter(FORMATS["csv"]([], tagger.labels, []))):
            raise InputError(
                f"{self.output.path} has other columns than `phototag predict` writes: pass a new "
                "output file"
            )
        reported = {f"{show_name(entry.file)}: {entry.error}" for entry in index}

        def warn(message: str) -> None:
            if message not in reported:
                self.warn(message)

        job = PredictionJob(tagger, names, self.output.format, warn, self.backend)
        for name, row in zip(names, job.predict_rows(), strict=True):
            file.write(json.dumps({"file": name} | row).encode() + b"\n")
            file.flush()
        return tagger.labels


def _read_entries(file: BinaryIO) -> list[Entry]:
    """Return the photos in the temporary file; the position is then at its end."""
    file.seek(0)
    return [read_entry(json.loads(line)) for line in file]


def _find_moved(index: Iterable[Entry], hashes: Mapping[str, str | None]) -> dict[Entry, str]:
    """Return the new paths of photos whose file no longer exists.

    A photo is found by its content, in a file that has no row.
    """
    taken = {locate(entry.file) for entry in index}
    free: dict[str | None, list[str]] = {}
    for name, sha256 in reversed([*hashes.items()]):
        if locate(show_bytes(name)) not in taken:
            free.setdefault(sha256, []).append(show_bytes(name))
    return {
        entry: free[entry.sha256].pop()
        for entry in index
        if not entry.error and free.get(entry.sha256) and not os.path.lexists(entry.file)
    }
