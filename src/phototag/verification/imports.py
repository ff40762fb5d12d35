"""The imports of a dataset, and the targets of photos that several imports list.

`data.raw` is either a zip or folder in the layout of `layout.py`, or a folder of such zips. Each of
these zips is one import, written by `phototag import`. Its sources.csv lists all photos of the
import. A photo that an earlier import stores has no file in the zip, but its labels are read.
"""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from phototag.base.errors import InputError, escape_control
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.sources import list_files
from phototag.decoding.system_files import split_system_files
from phototag.verification.labels import (
    UNLISTED,
    Labels,
    find_invalid_names,
    image_number,
    list_labels,
    normalize,
    read_labels,
    suggest,
)
from phototag.verification.layout import Layout, find_layout, find_roots
from phototag.verification.listing import read_sources
from phototag.verification.problems import Problem


@dataclass(frozen=True, slots=True)
class Entry:
    """A photo that an import lists.

    Attributes:
        origin: Name of the import, or "" if the dataset is not a folder of imports.
        name: Path of the photo, relative to `data.raw`.
        cells: Cells of the photo in sources.csv, by column; {} if it is not listed there.
        stored: Whether the import contains the file of the photo.
    """

    origin: str
    name: str
    cells: Mapping[str, str]
    stored: bool = True


class Import(NamedTuple):
    """The files of an import, and its photos in the order of their numbers."""

    layout: Layout
    entries: list[Entry]


@dataclass(frozen=True)
class RawDataset:
    """The imports in `data.raw`.

    Attributes:
        source: Path of `data.raw`.
        imports: Imports in the order of their names.
    """

    source: Path
    imports: list[Import]

    @cached_property
    def entries(self) -> list[Entry]:
        """The photos that the imports list, [num_entries], in the order of the imports."""
        return [entry for each in self.imports for entry in each.entries]

    @cached_property
    def stored(self) -> list[Entry]:
        """The entries whose files are stored, [num_stored]."""
        return [entry for entry in self.entries if entry.stored]

    @property
    def system_files(self) -> list[str]:
        """The system files of all imports."""
        return [name for each in self.imports for name in each.layout.system_files]

    def find_invalid_names(self) -> dict[str, str]:
        """Return file -> reason for the photos whose names are invalid."""
        found = [find_invalid_names(each.layout.images) for each in self.imports]
        return {file: reason for part in found for file, reason in part.items()}

    def list_labels(self) -> list[str]:
        """Return the labels of the label files of all imports, sorted."""
        files = [each.layout.annotations for each in self.imports]
        return sorted({label for part in files for label in list_labels(self.source, part)})

    def read_labels(
        self,
        expected: Sequence[str] = (),
        fill: Callable[[str, Mapping[str, np.ndarray]], np.ndarray | int] = lambda *_: UNKNOWN,
    ) -> Labels:
        """Read the label files of all imports; see `labels.read_labels`.

        Args:
            expected: Labels to read; omit to read all label files.
            fill: Function that receives a label without a label file in an import, and the targets
                of this import; it returns the targets of the label for the photos of this import.

        Raises:
            InputError: There are no label files, or none for an expected label.
        """
        existing = self.list_labels()
        wanted = list(map(normalize, expected))
        for label in wanted:
            if label not in existing:
                choices = textwrap.shorten(", ".join(existing), 1000) or "(none)"
                raise InputError(
                    f"data.labels: {self.source} has no annotations/{label}.txt: add it, or choose "
                    f"from the labels {choices}{suggest(label, existing)}"
                )
        if not existing:
            raise InputError(
                f"{self.source} has no label files: add annotations/CLASS.txt, or import photos "
                "with labels"
            )
        columns: dict[str, list[np.ndarray]] = {label: [] for label in wanted or existing}
        problems, num_lines = [], 0
        for each in self.imports:
            names = [entry.name for entry in each.entries]
            files, unknown = each.layout.annotations, each.layout.unknown
            part = read_labels(self.source, files, names, wanted, unknown)
            for label, column in columns.items():
                is_listed = label in part.targets
                found = part.targets[label] if is_listed else fill(label, part.targets)
                column.append(np.broadcast_to(found, len(names)))
            problems += part.problems
            num_lines += part.num_lines
        targets = {label: np.concatenate(parts, dtype=np.int8) for label, parts in columns.items()}
        return Labels(targets, problems, num_lines)

    def name_photos(self) -> list[str]:
        """Return the name of each stored photo in the manifest: its path in the source.

        A photo that is not in sources.csv is named after its file. If several photos have the same
        path, the name of the import is put in front of the path of all but the first.
        """
        names: dict[str, None] = {}
        for entry in self.stored:
            file = entry.name.partition("/")[2] if entry.origin else entry.name
            name = escape_control(entry.cells.get("source") or file)
            while name in names:
                name = f"{entry.origin or self.source.stem}/{name}"
            names[name] = None
        return list(names)

    def merge_targets(
        self, targets: Mapping[str, np.ndarray], stored: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Return the targets of the stored photos; later imports overrule earlier ones.

        For each photo and label, the last import that lists the photo and knows the target decides.
        Copies of a photo within one import keep their own targets.

        Args:
            targets: Label -> 1, 0, `UNKNOWN` or `UNLISTED` for each entry, int8 [num_entries].
            stored: SHA-256 of each stored photo, [num_stored]; "" for an unreadable file.

        Returns:
            Label -> target of each stored photo, int8 [num_stored]; `UNLISTED` if no import that
            lists the photo lists the label.
        """
        entries = self.entries
        if len(self.imports) == 1 and len(self.stored) == len(entries):
            return dict(targets)
        digests = dict(zip([one.name for one in self.stored], stored, strict=True))
        keys = [digests.get(one.name, one.cells.get("sha256")) or one.name for one in entries]
        rows: dict[str, list[int]] = {}
        for row, entry in enumerate(entries):
            if entry.stored:
                rows.setdefault(keys[row], []).append(row)
        table = np.stack(list(targets.values()), axis=1)
        merged = np.full_like(table, UNLISTED)
        for row, entry in enumerate(entries):
            for photo in rows.get(keys[row], ()):
                if photo == row or entries[photo].origin != entry.origin:
                    # UNLISTED < UNKNOWN < 0: an undecided target replaces only a lesser one.
                    undecided = np.maximum(merged[photo], table[row])
                    merged[photo] = np.where(table[row] >= 0, table[row], undecided)
        merged = merged[[entry.stored for entry in entries]]
        return dict(zip(targets, np.ascontiguousarray(merged.T), strict=True))

    def list_removed(self, stored: Sequence[str]) -> list[Problem]:
        """Return a problem for each photo that an import lists and that no import stores."""
        known = {*stored}
        return [
            Problem(one.name, 0, "photo is in no import", one.cells.get("source", ""), "noted")
            for one in self.entries
            if not one.stored and one.cells["sha256"] not in known
        ]


def list_zips(source: Path) -> list[str]:
    """Return the names of the zips in a folder of imports, in order; [] for other sources.

    Raises:
        InputError: The folder has zips, but also other files.
    """
    if not source.is_dir():
        return []
    names, _ = split_system_files(list_files(source))
    zips = [name for name in names if re.fullmatch(r"[^/]+\.zip", name, re.IGNORECASE)]
    if not zips or find_roots(names):
        return []
    if others := sorted(set(names) - set(zips)):
        raise InputError(
            f"{source / others[0]} is not an import, and {source} may contain only imports: move "
            "the file to another folder, and add photos with `phototag import FOLDER --add`"
        )
    return sorted(zips, key=lambda name: (import_number(name) < 0, import_number(name), name))


def import_number(name: str) -> int:
    """Return the number at the start of an import's name, or -1 if there is none."""
    match = re.match(r"\d{1,9}", name, re.ASCII)
    return int(match[0]) if match else -1


def read_dataset(source: Path) -> RawDataset:
    """List the imports in a source, and the photos of each import.

    Raises:
        InputError: The dataset, or a zip in a folder of imports, has another layout.
    """
    zips = list_zips(source)
    if not zips:
        return RawDataset(source, [_read_import(source, "", find_layout(source))])
    return RawDataset(
        source,
        [
            _read_import(source, Path(name).stem, find_layout(source / name, f"{name}/"))
            for name in zips
        ],
    )


def _read_import(source: Path, name: str, layout: Layout) -> Import:
    rows = read_sources(source, layout.sources)
    stored = {image_number(file) for file in layout.images}
    folder = (layout.sources or "")[: -len("sources.csv")]
    entries = [Entry(name, file, rows.get(image_number(file), {})) for file in layout.images]
    entries += [
        Entry(name, f"{folder}images/{cells['file'].rpartition('/')[2]}", cells, stored=False)
        for number, cells in rows.items()
        if number not in stored and cells.get("sha256")
    ]
    entries.sort(key=lambda entry: (image_number(entry.name) or 0, entry.name))
    return Import(layout, entries)
