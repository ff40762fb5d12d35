"""Edits of labels: renames, merges, implications and drops, read from data/labels.yaml.

The label files and the corrections file are not changed: `resize` applies the edits each time it
reads them. If a line is removed from data/labels.yaml, its edit is undone.
"""

from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.resolver import VersionedResolver

from phototag.base.errors import InputError
from phototag.base.params import ParamGroup, validate_params
from phototag.verification.labels import normalize
from phototag.verification.listing import decode_text

EDITS = Path("data/labels.yaml")
Name = Annotated[str, StringConstraints(strip_whitespace=True)]
Names = Annotated[tuple[Name, ...], Field(strict=False)]


class LabelEdits(ParamGroup):
    """The content of data/labels.yaml. Names are in composed Unicode (NFC).

    Attributes:
        rename: Old label -> new label. Several labels that are renamed to one label are merged.
        imply: Label -> labels that each photo with this label has too.
        drop: Labels that are not learned.
        absent: Labels that are absent, not unknown, on photos of imports that do not list them.
    """

    rename: dict[Name, Name] = Field(default_factory=dict)
    imply: dict[Name, Names] = Field(default_factory=dict)
    drop: Names = ()
    absent: Names = ()

    def list_names(self, label: str) -> list[str]:
        """Return a label and the names that it gets by renames; the last one is final."""
        names = [label]
        while names[-1] in self.rename:
            names.append(self.rename[names[-1]])
        return names

    def final(self, label: str) -> str:
        """Return the name of a label after all renames."""
        return self.list_names(label)[-1]

    @cached_property
    def parents(self) -> set[str]:
        """The labels that other labels imply."""
        return set().union(*self.imply.values())


class _TextResolver(VersionedResolver):
    """Resolver that reads each scalar as text, because `no` and 2024 may be labels."""

    @property
    def versioned_resolver(self) -> dict[str, Any]:
        return {}


def make_yaml() -> YAML:
    """Return a YAML reader and writer that keeps comments, and reads each scalar as text."""
    yaml = YAML()
    yaml.Resolver = _TextResolver
    yaml.preserve_quotes = True
    yaml.width = 4096  # wide enough that no line is wrapped
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def read_edits(path: Path) -> LabelEdits:
    """Read and validate data/labels.yaml; a missing file has no edits.

    Raises:
        InputError: See `parse_edits`.
    """
    return parse_edits(path.read_bytes()) if path.exists() else LabelEdits()


def check_unchanged(edits: LabelEdits) -> None:
    """Check that data/labels.yaml still has the edits that were read at the start of the stage.

    DVC records the file as it is after the stage, so that it would not apply later changes.

    Raises:
        InputError: The edits have changed.
    """
    if read_edits(EDITS) != edits:
        raise InputError(f"{EDITS} was changed while the stage ran: run `dvc repro` again")


def parse_edits(data: bytes) -> LabelEdits:
    """Parse the content of data/labels.yaml.

    `imply`, `drop` and `absent` may contain old names; the result contains the final names.

    Raises:
        InputError: The file is not a YAML mapping in UTF-8, a key is unknown or listed twice, a
            value has another type, or renames or implications form a circle.
    """
    values: dict[str, Any] = load_values(data) or {}
    # `drop:` without a value is what remains if all its lines are removed.
    given = {key: value for key, value in values.items() if value != ""}
    edits = validate_params(LabelEdits, given, str(EDITS))
    _check_circles({old: (new,) for old, new in edits.rename.items()}, "rename")
    imply: dict[str, tuple[str, ...]] = {}
    for child, parents in edits.imply.items():
        label = edits.final(child)
        # A label that is merged with one that it implies no longer implies it.
        found = {*imply.get(label, ()), *map(edits.final, parents)} - {label}
        imply |= {label: tuple(sorted(found))} if found else {}
    _check_circles(imply, "imply")
    drop, absent = tuple(map(edits.final, edits.drop)), tuple(map(edits.final, edits.absent))
    return LabelEdits(rename=edits.rename, imply=imply, drop=drop, absent=absent)


def load_values(data: bytes) -> CommentedMap | None:
    """Parse the content of data/labels.yaml without validating its names; None if it is empty.

    Raises:
        InputError: The content is not a YAML mapping in UTF-8, or a key is listed twice.
    """
    try:
        values = make_yaml().load(normalize(decode_text(data, str(EDITS))))
    except (YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{EDITS}:{mark.line + 1}" if mark else EDITS
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"{place}: not valid YAML ({problem}): correct this line") from None
    if values in (None, ""):
        return None
    if not isinstance(values, CommentedMap):
        keys = ", ".join(LabelEdits.model_fields)
        raise InputError(f"{EDITS}: expected a mapping with the keys {keys}, not {values!r:.40}")
    return values


def _check_circles(graph: dict[str, tuple[str, ...]], key: str) -> None:
    """Check that no chain of `graph`, which maps a label to the next labels, forms a circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # Each label of this list is one of the next labels of the label after it.
        circle = " -> ".join(reversed(error.args[1]))
        raise InputError(
            f"{EDITS}: {key}: {circle} is a circle: remove one of these lines"
        ) from None
