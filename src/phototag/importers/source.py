"""The source of an import, and the photos and labels read from it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import StrictInt, StrictStr, TypeAdapter, ValidationError

from phototag.base.errors import InputError
from phototag.base.params import describe_validation_error
from phototag.decoding.formats import split_photos
from phototag.decoding.sources import read_named_file
from phototag.importers.table_files import TABLE_SUFFIXES, parse_table
from phototag.verification.listing import Listing, decode_text

Structure = TypeVar("Structure")
Id = StrictInt | StrictStr


@dataclass(frozen=True)
class ImportOptions:
    """The options of `phototag import`; an option that is None is detected from the source.

    Attributes:
        format: Format of the source, a key of `FORMATS`.
        images: Folder that the paths in a table or JSON file are relative to.
        separator: Separator between the labels in one cell of a table.
        missing: Meaning of a keyword that a photo lacks: `absent`, `unknown`, or `absent-if-tagged`
            (absent, but unknown if the photo has no keyword). It is not detected.
        min_photos: Keywords of fewer photos are skipped.
        folder: Name of a folder -> label (the folder is a label) | none (its photos have none of
            the labels) | unknown (their labels are unknown).
        known_labels: Labels of the dataset to which the photos are added; None for a new dataset.
    """

    format: str | None = None
    images: Path | None = None
    separator: str | None = None
    missing: str | None = None
    min_photos: int | None = None
    folder: Mapping[str, str] = field(default_factory=dict)
    known_labels: frozenset[str] | None = None


@dataclass(eq=False)
class Source:
    """A folder or zip of photos, or a file that lists photos.

    Attributes:
        path: Path of the folder, zip or file.
        options: Options of the import.
        names: Relative paths of the files in the folder or zip; None for a file that lists photos.
    """

    path: Path
    options: ImportOptions
    names: Sequence[str] | None = None

    @cached_property
    def split_names(self) -> tuple[list[str], list[str]]:
        """The photos and the other files in the folder or zip, see `split_photos`."""
        return split_photos(self.path, self.names or ())

    def describe_others(self) -> list[str]:
        """Return a list with one note about the files that are not photos, or an empty list."""
        _, others = self.split_names
        if not others:
            return []
        return [f"skipped files that are not photos: {len(others)}, such as {others[0]!r}"]

    @cached_property
    def data(self) -> bytes:
        """The bytes of the file that lists photos."""
        file = self.path.resolve()  # the path may be a link to a file in another folder
        return read_named_file(file.parent, file.name)

    @cached_property
    def text(self) -> str:
        """The decoded text of the file that lists photos."""
        return decode_text(self.data, str(self.path))

    @cached_property
    def table(self) -> Listing:
        """The parsed content of a CSV, TSV, JSON Lines or Parquet file."""
        return parse_table(self.data, self.path, self.options.separator)

    def is_json(self, bracket: str, keys: Sequence[str]) -> bool:
        """Return whether the source is a JSON file with the given opening bracket and keys."""
        if self.names is not None or self.path.suffix.lower() != ".json":
            return False
        starts = self.text[:1000].lstrip().startswith(bracket)
        return starts and all(f'"{key}"' in self.text for key in keys)

    def is_table(self) -> bool:
        """Return whether the source is a CSV, TSV, JSON Lines or Parquet file."""
        return self.names is None and self.path.suffix.lower() in TABLE_SUFFIXES

    def is_metadata(self) -> bool:
        """Return whether the source is a metadata file of a Hugging Face ImageFolder."""
        return self.is_table() and self.path.stem == "metadata"

    def parse_json(self, structure: TypeAdapter[Structure]) -> Structure:
        """Parse the JSON file and validate its structure; unknown keys are ignored."""
        try:
            return structure.validate_json(self.text)
        except ValidationError as error:
            raise InputError(f"{self.path}: {describe_validation_error(error)}") from None


@dataclass(frozen=True)
class SourcePhoto:
    """A photo of a source, and its labels.

    Attributes:
        name: Path of the photo, relative to `root` if `root` is not None.
        root: Folder or zip that must contain the photo and, if the photo is a symbolic link, its
            target. None if the user wrote the list; then the photo may be anywhere.
        labels: Labels that the photo has.
        unknown: Labels that may or may not apply to the photo; None for all labels not in `labels`.
        id: Id of the photo in the source, or "" if it has none.
        group: Group of the photo in the source (photographer, album), or "" if it has none.
        number: Number N in the file name imN.jpg; None to number the photos in order.
        place: Place of the photo in a list (file and line or key), or "".
        origin: Path that sources.csv lists for a photo that was imported before, or "".
    """

    name: str
    root: Path | None
    labels: frozenset[str]
    unknown: frozenset[str] | None = frozenset()
    id: str = ""
    group: str = ""
    number: int | None = None
    place: str = ""
    origin: str = ""

    @property
    def path(self) -> Path:
        """The path of the photo; if `root` is a zip, the path of the zip joined with `name`."""
        return Path(self.name) if self.root is None else self.root / self.name


@dataclass(frozen=True)
class SourceDataset:
    """The photos and labels read from a source.

    Attributes:
        description: Format and size of the source, such as "one-hot CSV: 4 rows".
        photos: Photos in the order of the source.
        labels: Labels that the source defines, even if no photo has them; [] if it has no such
            list. `read_source` returns all labels to import, in alphabetical order.
        notes: Messages about skipped content and possible mistakes.
    """

    description: str
    photos: list[SourcePhoto]
    labels: list[str]
    notes: list[str]

    @property
    def unlabelled(self) -> list[SourcePhoto]:
        """The photos that have no label."""
        return [photo for photo in self.photos if not photo.labels]

    def describe_unlabelled(self) -> list[str]:
        """Return notes on the number of photos that have no label, and on what this means."""
        # If the source has no label at all, the dataset to which it is added has labels.
        unknown = sum(bool(photo.unknown or not self.labels) for photo in self.unlabelled)
        none = len(self.unlabelled) - unknown
        counts = {"having none of the labels": none, "having unknown labels": unknown}
        return [f"photos without a label, read as {how}: {n}" for how, n in counts.items() if n]

    def count_labels(self) -> dict[str, int]:
        """Return the number of photos that have each label."""
        return {label: sum(label in photo.labels for photo in self.photos) for label in self.labels}

    def count_unknown(self) -> dict[str, int]:
        """Return the number of photos for which each label is unknown; zeros are omitted."""
        unknown = Counter(label for photo in self.photos for label in photo.unknown or ())
        return dict(sorted(unknown.items()))
