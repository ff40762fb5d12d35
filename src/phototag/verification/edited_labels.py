"""Labels of a dataset after the edits in data/labels.yaml.

A label that several imports list is merged import by import: if an import lists some of the merged
labels, its photos lack the others.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from textwrap import shorten

import numpy as np

from phototag.base.errors import InputError
from phototag.dataset.targets import UNKNOWN
from phototag.verification.label_edits import EDITS, LabelEdits
from phototag.verification.labels import UNLISTED, check_label, normalize, suggest


@dataclass(frozen=True)
class EditedLabels:
    """The labels of a dataset after the edits.

    Attributes:
        edits: Edits, read from data/labels.yaml.
        given: Labels of the label files of all imports.
        wanted: Labels in `data.labels`, by their old or final names; () for all labels.
    """

    edits: LabelEdits
    given: Collection[str]
    wanted: Sequence[str] = ()

    @cached_property
    def sources(self) -> dict[str, set[str]]:
        """Label -> labels of the label files from which its targets are merged.

        The keys are all labels before, between and after renames, and labels that are only implied.
        """
        rename, imply = self.edits.rename, self.edits.imply
        edited = dict.fromkeys([*rename, *rename.values(), *imply, *sorted(self.edits.parents)])
        found: dict[str, set[str]] = {label: set() for label in edited}
        for label in self.given:
            for name in self.edits.list_names(label):
                found.setdefault(name, set()).add(label)
        return found

    @cached_property
    def inputs(self) -> dict[str, list[str]]:
        """Label -> labels that are renamed to it or imply it; a label comes after these labels."""
        inputs: dict[str, list[str]] = {label: [] for label in self.sources}
        for old, new in self.edits.rename.items():
            inputs[new].append(old)
        for child, parents in self.edits.imply.items():
            for parent in parents:
                inputs[parent].append(child)
        return {label: inputs[label] for label in TopologicalSorter(inputs).static_order()}

    @cached_property
    def labels(self) -> list[str]:
        """The labels after all edits, sorted by the names that their label files would have."""
        gone = {*self.edits.rename, *self.edits.drop}
        return sorted(self.sources.keys() - gone, key=lambda label: f"{label}.txt")

    @cached_property
    def renamed(self) -> dict[str, str]:
        """Old name -> final label, for names with the same meaning: not for merged labels."""
        finals = {old: self.edits.final(old) for old in self.edits.rename}
        return {old: new for old, new in finals.items() if self.sources[old] == self.sources[new]}

    @cached_property
    def learned(self) -> list[str]:
        """The labels to learn: those in `data.labels`, or all labels, without dropped labels."""
        wanted = dict.fromkeys(self.edits.final(normalize(label)) for label in self.wanted)
        return [label for label in wanted or self.labels if label not in self.edits.drop]

    @property
    def needed(self) -> list[str]:
        """The labels whose label files determine the labels in `data.labels`; [] for all."""
        return sorted(self.trace(self.learned) & {*self.given}) if self.wanted else []

    def trace(self, labels: Iterable[str]) -> set[str]:
        """Return labels and all labels that are renamed to them or imply them."""
        found, queue = set(), [*labels]
        while queue:
            label = queue.pop()
            if label not in found:
                found.add(label)
                queue += self.inputs.get(label, [])
        return found

    def check(self) -> "EditedLabels":
        """Check the edits against the labels of the dataset, and return this object.

        Raises:
            InputError: An edit or `data.labels` names a label that does not exist, the name of a
                new label is invalid, or all labels are dropped.
        """
        edits = self.edits
        for key in ("rename", "imply", "drop", "absent"):
            for label in getattr(edits, key):
                # A label that was only implied may have been renamed.
                if not self.sources.get(label) and edits.final(label) not in edits.parents:
                    raise InputError(
                        f"{EDITS}: {key}: no label file has the name {label!r}"
                        f"{suggest(label, [*self.given, *sorted(edits.parents)])}: correct the "
                        "name, or remove the line if the label is no longer in the dataset"
                    )
        for key, names in (("rename", edits.rename.values()), ("imply", sorted(edits.parents))):
            for label in names:
                if label not in self.given:
                    self._check_new(label, f"{EDITS}: {key}")
        for label in map(normalize, self.wanted):
            if self.given and label not in self.sources:
                raise InputError(
                    f"data.labels: the dataset has no label {label!r}{suggest(label, self.labels)}:"
                    f" correct the name, or choose from {shorten(', '.join(self.labels), 1000)}"
                )
        if self.given and not self.learned:
            raise InputError(
                f"{EDITS}: drop: all labels are dropped, or all in data.labels: keep at least one"
            )
        return self

    def _check_new(self, label: str, place: str) -> None:
        check_label(label, place)
        for other in self.labels if label in self.labels else []:
            if other != label and other.casefold() == label.casefold():
                raise InputError(
                    f"{place}: {label!r} and the label {other!r} differ only in case: use one name"
                )

    def fill(self, label: str, targets: Mapping[str, np.ndarray]) -> np.ndarray | int:
        """Return the targets of a label for the photos of an import that does not list it.

        If the import lists labels that are merged with this label, they decide: the label is then
        unknown where the merged label would be unknown, and absent elsewhere.

        Args:
            label: Label of a label file of another import.
            targets: Label -> 1, 0 or `UNKNOWN` for each photo of the import, int8 [num_photos].
        """
        others = self.sources[self.edits.final(label)].intersection(targets)
        if not others:
            return UNLISTED
        return np.asarray(np.minimum(merge_columns([targets[other] for other in others]), 0))


def merge_columns(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return 1 if any target is 1, else `UNKNOWN` if any is, else 0 if any is, else `UNLISTED`."""
    merged = np.full_like(columns[0], UNLISTED)
    for value in (0, UNKNOWN, 1):
        for column in columns:
            merged[column == value] = value
    return merged
