"""Edits of labels: renames, merges, implications and drops, read from data/labels.yaml.

The label files and the corrections file are not changed: `resize` applies the edits each time it
reads them. If a line is removed from data/labels.yaml, its edit is undone.
"""

import re
from collections.abc import Collection, Mapping
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError
from ruamel.yaml.resolver import VersionedResolver

from phototag.base.errors import InputError
from phototag.base.params import ParamGroup, validate_params
from phototag.verification.labels import normalize
from phototag.verification.listing import decode_text

Names = Annotated[tuple[str, ...], Field(strict=False)]


class LabelEdits(ParamGroup):
    """The content of data/labels.yaml. Names are in composed Unicode (NFC).

    Attributes:
        rename: Old label -> new label. Several labels that are renamed to one label are merged.
        imply: Label -> labels that each photo with this label has too.
        drop: Labels that are not learned.
        absent: Labels that are absent, not unknown, on photos of imports that do not list them.
    """

    rename: dict[str, str] = Field(default_factory=dict)
    imply: dict[str, Names] = Field(default_factory=dict)
    drop: Names = ()
    absent: Names = ()

    def list_names(self, label: str) -> list[str]:
        """Return a label and the names that it gets by renames; the last one is final."""
        names = [label]
        while names[-1] in self.rename:
            names.append(self.rename[names[-1]])
        return names

    @cached_property
    def ancestors(self) -> dict[str, set[str]]:
        """Label -> all labels that it implies, directly or through other labels."""
        found: dict[str, set[str]] = {}
        for label in TopologicalSorter(self.imply).static_order():
            parents = self.imply.get(label, ())
            found[label] = {*parents}.union(*(found[parent] for parent in parents))
        return found

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
    return parse_edits(path.read_bytes(), str(path)) if path.exists() else LabelEdits()


def check_unchanged(edits: LabelEdits, path: Path) -> None:
    """Check that data/labels.yaml still has the edits that were read at the start of the stage.

    DVC records the file as it is after the stage, so that it would not apply later changes.

    Raises:
        InputError: The edits have changed.
    """
    if read_edits(path) != edits:
        raise InputError(f"{path} was changed while the stage ran: run `dvc repro` again")


def parse_edits(data: bytes, path: str) -> LabelEdits:
    """Parse the content of data/labels.yaml. Error messages start with `path`.

    Raises:
        InputError: The file is not a YAML mapping in UTF-8, a key is unknown or listed twice, a
            value has another type, or edits contradict each other or form a circle.
    """
    values = load_values(data, path)
    groups = {} if values is None else _normalize_names(values, path)
    if not isinstance(groups, dict):
        keys = ", ".join(LabelEdits.model_fields)
        raise InputError(f"{path}: expected a mapping with the keys {keys}, not {values!r:.40}")
    # `drop:` without a value is what remains if all its lines are removed.
    given = {key: value for key, value in groups.items() if value != ""}
    edits = validate_params(LabelEdits, given, path)
    _check_circles({old: [new] for old, new in edits.rename.items()}, f"{path}: rename")
    _check_circles(edits.imply, f"{path}: imply")
    _check_conflicts(edits, path)
    return edits


def load_values(data: bytes, path: str) -> Any:
    """Parse the content of data/labels.yaml with `make_yaml`, without validating it.

    Raises:
        InputError: The content is not valid YAML in UTF-8, or a key is listed twice.
    """
    try:
        return make_yaml().load(decode_text(data, path))
    except DuplicateKeyError as error:
        key = re.search('key "(.*?)" with', error.problem or "")
        name = f"the key {key[1]!r}" if key else "a key"
        raise InputError(f"{_locate(error, path)}: {name} is listed twice: join them") from None
    except YAMLError as error:
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        fix = "indent with spaces" if "\\t" in problem else "correct this line"
        raise InputError(f"{_locate(error, path)}: not valid YAML ({problem}): {fix}") from None


def _locate(error: YAMLError, path: str) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"{path}:{mark.line + 1}" if mark else path


def _normalize_names(value: Any, place: str) -> Any:
    """Return nested values as plain Python objects, with the names in NFC and stripped."""
    if isinstance(value, Mapping):
        names: dict[Any, Any] = {}
        for key, item in value.items():
            name = _normalize_names(key, place)
            if name in names:
                raise InputError(f"{place}: the key {name!r} is listed twice: join them")
            names[name] = _normalize_names(item, f"{place}: {name}")
        return names
    if isinstance(value, list):
        return [_normalize_names(item, place) for item in value]
    return normalize(value).strip() if isinstance(value, str) else value


def _check_circles(graph: Mapping[str, Collection[str]], place: str) -> None:
    """Check that no chain of `graph`, which maps a label to the next labels, forms a circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # Each label of this list is one of the next labels of the label after it.
        circle = " -> ".join(reversed(error.args[1]))
        raise InputError(f"{place}: {circle} is a circle: remove one of these lines") from None


def _check_conflicts(edits: LabelEdits, path: str) -> None:
    """Check that no edit concerns a label that another edit renames or drops."""
    implied = [*edits.imply, *edits.parents]
    for key, labels in (("imply", implied), ("drop", edits.drop), ("absent", edits.absent)):
        for label in labels:
            if label in edits.rename:
                new = edits.list_names(label)[-1]
                raise InputError(
                    f"{path}: {key}: {label!r} is renamed to {new!r} under `rename`: write the new "
                    "name, or remove one of the lines"
                )
            if key != "drop" and label in edits.drop:
                raise InputError(
                    f"{path}: {key}: {label!r} is dropped under `drop`: remove one of the lines"
                )
