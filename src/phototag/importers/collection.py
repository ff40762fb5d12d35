"""The one shape that every format is read into, and what all formats ask of a source."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import AfterValidator, TypeAdapter, ValidationError

from phototag.base.errors import InputError
from phototag.dataset.manifest import check_labels
from phototag.decoding.sources import read_file
from phototag.decoding.system_files import is_system_file
from phototag.verification.labels import is_about_photo, normalize

NONE: frozenset[str] = frozenset()
EVERY = frozenset({"*"})  # stands for all labels until they are known; in none may a * be
MAX_LABEL_BYTES = 200  # file systems take 255 for the whole name
SHOWN = 5  # names in a note
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')  # on one system or another
Shape = TypeVar("Shape")


class Place(NamedTuple):
    """Where something stands, for messages: a file, and its line (from 1) or its key."""

    file: str
    spot: int | str

    def __str__(self) -> str:
        """Write list.csv:3, or instances.json: images[2]."""
        gap = "" if isinstance(self.spot, int) else " "
        return f"{self.file}:{gap}{self.spot}"

    @property
    def within(self) -> str:
        """Where in the file."""
        return f"on line {self.spot}" if isinstance(self.spot, int) else f"in {self.spot}"


@dataclass(frozen=True)
class Entry:
    """One photo of a source.

    Attributes:
        name: Of its file, relative to `root`; without one, a path.
        root: The folder or zip out of which no link may lead; None for a file that the user's own
            list names.
        labels: Those that it carries.
        unknown: Those of which the source does not say whether it carries them, or `EVERY`.
        id: Its own in the source; empty where it has none.
        group: The user's (photographer, album); empty where there is none.
        number: That it keeps; None for the next one.
    """

    name: str
    root: Path | None
    labels: frozenset[str]
    unknown: frozenset[str] = NONE
    id: str = ""
    group: str = ""
    number: int | None = None

    @property
    def path(self) -> Path:
        """Its file, or where that would lie if its zip were unpacked."""
        return Path(self.name) if self.root is None else self.root / self.name


@dataclass(frozen=True)
class Collection:
    """Photos and labels of a source.

    Attributes:
        what: What the source was recognised as, and how many of each it holds, in words.
        entries: The photos, in the order of the source.
        labels: All of them, in alphabetical order.
        notes: What the user should know, a sentence each.
    """

    what: str
    entries: list[Entry]
    labels: list[str]
    notes: list[str]


def collect(
    source: Path, what: str, entries: list[Entry], notes: Sequence[str], offered: Iterable[str] = ()
) -> Collection:
    """Join the photos of a source; a label that none of them carries cannot be learned.

    Args:
        source: For the message.
        what: As in `Collection`.
        entries: As there.
        notes: So far.
        offered: Labels that the source names; those that no photo carries are left out and noted.

    Raises:
        InputError: No photo carries a label.
    """
    carried = frozenset().union(*(entry.labels for entry in entries))
    if not carried:
        raise InputError(f"{source}: no photo carries a label, so there is nothing to learn")
    notes = [*notes, *doubt_labels(sorted(carried), {entry.group for entry in entries})]
    if left := sorted(set(offered) - carried):
        notes.append(f"{count(len(left), 'label')} that no photo carries: {shorten(left)}")
    entries = [
        replace(entry, unknown=carried if entry.unknown == EVERY else entry.unknown & carried)
        if entry.unknown
        else entry
        for entry in entries
    ]
    return Collection(what, entries, sorted(carried), notes)


def check_label(label: str, place: object) -> str:
    """Return a label in NFC and without blanks around it.

    Raises:
        InputError: It cannot be a file's name, which it will be, or a column of the manifest's.
    """
    label = normalize(label).strip()
    file = f"{label}.txt"
    too_long = len(label.encode(errors="replace")) > MAX_LABEL_BYTES
    if (
        not label
        or _FORBIDDEN.search(label)
        or too_long
        or is_system_file(file)
        or is_about_photo(file)
    ):
        raise InputError(f"{place}: the label {label[:40]!r} cannot name a file: rename it")
    try:
        check_labels([label])
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    return label


def doubt_labels(labels: Iterable[str], groups: set[str] | frozenset[str]) -> list[str]:
    """Say what may be no label, or no group, in the user's mind."""
    labels = list(labels)
    doubts = [
        f"the label {label!r} holds a comma; labels of one photo are separated by semicolons"
        for label in labels
        if "," in label
    ]
    doubts += [
        f"{group!r} is a label and a group as well; labels of one photo stand in one cell, "
        "separated by semicolons"
        for group in sorted(groups & set(labels))
    ]
    first: dict[str, str] = {}
    for label in labels:
        if (other := first.setdefault(label.casefold(), label)) != label:
            doubts.append(f"the labels {other!r} and {label!r} differ in capitals only")
    return doubts


def find_photo(folder: Path, name: str, place: Place, seen: dict[str, Place]) -> Path:
    """Find the file that a list names, which it may name once.

    Args:
        folder: What a relative name starts from.
        name: As the list has it.
        place: Where it stands.
        seen: Files found so far -> where they stand; this one is added.

    Raises:
        InputError: There is no name, no such file, or it stands there twice.
    """
    if not name:
        raise InputError(f"{place}: no file")
    path = locate(folder, name)
    first = seen.setdefault(os.path.normpath(path), place)
    if first is not place:
        raise InputError(f"{place}: {name} stands {first.within} already")
    if not os.path.isfile(path):  # noqa: PTH113
        what = "no file" if os.path.lexists(path) else "missing"
        raise InputError(f"{place}: {path} is {what}")
    return path


def confine(path: Path, folder: Path, place: Place) -> str:
    """Return a file's name relative to a folder; a list from elsewhere must not lead out of it.

    Raises:
        InputError: It does.
    """
    name = os.path.relpath(os.path.normpath(path), folder).replace(os.sep, "/")
    if name.split("/")[0] == "..":
        raise InputError(
            f"{place}: {path} leads out of {folder}: name the folder of the photos with --images"
        )
    return name


def locate(folder: Path, name: str) -> Path:
    """Return where a file lies that a list names.

    The list may have come from Windows, with backslashes, or the files from macOS, in decomposed
    Unicode.
    """
    path = folder / name
    if os.path.lexists(path):
        return path
    path = folder
    for part in Path(name.replace("\\", "/")).parts:
        as_written = path / part
        found = part if os.path.lexists(as_written) else list_names(path).get(normalize(part))
        path = path / (found or part)
    return path


@lru_cache(maxsize=64)
def list_names(folder: Path) -> dict[str, str]:
    """Return the names in a folder, in NFC -> as they are; none where it cannot be read."""
    try:
        return {normalize(name): name for name in os.listdir(folder)}  # noqa: PTH208
    except (OSError, ValueError):
        return {}


def choose_images(source: Path, names: Sequence[str], images: Path | None) -> Path:
    """Choose the folder that a list's names start from: beside the list, or as the user says.

    Args:
        source: The list.
        names: Some that it holds.
        images: The user's word, or None.

    Raises:
        InputError: There is no such folder, or there are several.
    """
    if images is not None:
        return images
    here, above = source.parent, source.parent.parent
    split = source.stem.removeprefix("instances_")  # COCO's own layout
    folders = [*(here / part for part in ("", "images", "data", split)),
               *(above / part for part in ("", "images", "data", split))]  # fmt: skip
    files = [
        {path.resolve() for name in names if (path := locate(folder, name)).is_file()}
        for folder in folders
    ]
    most = max(files, key=len)
    if not most:
        raise InputError(
            f"{source}: {names[0] if names else 'no photo'} lies neither beside it nor in images/: "
            "name the folder of the photos with --images"
        )
    ties = {frozenset(found): folder for found, folder in zip(files, folders, strict=True)
            if len(found) == len(most)}  # fmt: skip
    if len(ties) > 1:
        first, second, *_ = ties.values()
        raise InputError(
            f"{source} may mean photos in {first} or in {second}: say which with --images"
        )
    return folders[files.index(most)]


def read_source_file(source: Path, name: str) -> bytes:
    """Read one file of a folder or zip.

    Raises:
        InputError: With the file's name.
    """
    try:
        return read_file(source, name)
    except InputError as error:
        raise InputError(f"{source / name}: {error}; mend or remove it") from None


def _check_id(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("should be a number or text")
    return value


Id = Annotated[Any, AfterValidator(_check_id)]


def parse_json(adapter: TypeAdapter[Shape], text: str, file: str) -> Shape:
    """Read JSON of a given shape; what the shape does not name is not even built.

    Raises:
        InputError: It is no JSON, or of another shape; the message names the first key.
    """
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        problem, *others = error.errors(include_url=False)
    if problem["type"] == "json_invalid":
        why = problem["ctx"]["error"]
        raise InputError(f"{file}: no whole JSON ({why}): write it anew, it may have been cut off")
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
    what = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    said = "is missing" if problem["type"] == "missing" else what
    given = "" if said == "is missing" else f", not {shorten_text(repr(problem['input']))}"
    more = f" (and {len(others)} more of the kind)" if others else ""
    raise InputError(f"{file}: {key.lstrip('.') or 'the whole'} {said}{given}{more}")


def shorten_text(text: str) -> str:
    """Cut what is too long to quote."""
    return text if len(text) <= 60 else f"{text[:57]}..."


def shorten(names: Sequence[str]) -> str:
    """List names, the first few of many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def count(number: int, noun: str, nouns: str = "") -> str:
    """Write 1 photo, 2 photos."""
    return f"{number} {noun if number == 1 else nouns or noun + 's'}"
