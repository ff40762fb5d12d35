"""Output of `phototag predict` to which rows are added."""

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from phototag.apps.formats import COLUMNS, FORMATS, join_cells, show_bytes
from phototag.base.errors import InputError
from phototag.base.files import replace_file
from phototag.importers.table_files import PREDICTED


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
