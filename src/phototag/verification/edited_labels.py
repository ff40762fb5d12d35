"""Labels of a dataset after the edits in data/labels.yaml.

A label that several imports list is merged import by import: if an import lists some of the merged
labels, its photos lack the others.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter

import numpy as np

from phototag.base.errors import InputError
from phototag.dataset.targets import UNKNOWN
from phototag.verification.label_edits import LabelEdits
from phototag.verification.labels import UNLISTED, check_label, normalize, suggest


@dataclass(frozen=True)
class EditedLabels:
    """The labels of a dataset after the edits.

    Attributes:
        edits: Edits, read from data/labels.yaml.
        given: Labels of the label files of all imports.
        wanted: Labels in `data.labels`; () for all labels.
        path: Path of data/labels.yaml, for messages.
    """

    edits: LabelEdits
    given: Collection[str]
    wanted: Sequence[str] = ()
    path: str = "data/labels.yaml"

    @cached_property
    def sources(self) -> dict[str, set[str]]:
        """Label -> labels of the label files from which its targets are merged.

        The keys are all labels before, between and after renames, and labels that are only implied.
        """
        rename, parents = self.edits.rename, self.edits.parents
        edited = dict.fromkeys([*rename, *rename.values(), *sorted(parents)])
        found: dict[str, set[str]] = {label: set() for label in edited}
        for label in self.given:
            for name in self.edits.list_names(label):
                found.setdefault(name, set()).add(label)
        return found

    @cached_property
    def merged(self) -> dict[str, list[str]]:
        """Label -> labels that are renamed to it; a label comes after these labels."""
        olds: dict[str, list[str]] = {label: [] for label in self.sources}
        for old, new in self.edits.rename.items():
            olds[new].append(old)
        return {label: olds[label] for label in TopologicalSorter(olds).static_order()}

    @cached_property
    def labels(self) -> list[str]:
        """The labels after all edits, sorted by the names that their label files would have."""
        gone = {*self.edits.rename, *self.edits.drop}
        return sorted(self.sources.keys() - gone, key=lambda label: f"{label}.txt")

    @cached_property
    def renamed(self) -> dict[str, str]:
        """Old name -> final label, for names with the same meaning: not for merged labels."""
        finals = {old: self.edits.list_names(old)[-1] for old in self.edits.rename}
        return {
            old: label
            for old, label in finals.items()
            if label in self.labels and self.sources[old] == self.sources[label]
        }

    @property
    def learned(self) -> list[str]:
        """The labels to learn: those in `data.labels`, or all labels after the edits."""
        return [normalize(label) for label in self.wanted] or self.labels

    @cached_property
    def needed(self) -> list[str]:
        """The labels whose label files determine the targets of the labels in `wanted`."""
        if not self.edits.model_fields_set:
            return list(self.wanted)
        wanted = {normalize(label) for label in self.wanted}
        implying = {label for label, found in self.edits.ancestors.items() if found & wanted}
        return sorted(set().union(*(self.sources[label] for label in wanted | implying)))

    def check(self) -> "EditedLabels":
        """Check the edits against the labels of the dataset, and return this object.

        Raises:
            InputError: An edit or `data.labels` names a label that does not exist, the name of a
                new label is invalid, or all labels are dropped.
        """
        edits, parents = self.edits, sorted(self.edits.parents)
        for key, labels in (
            ("rename", edits.rename),
            ("imply", [label for label in edits.imply if label not in parents]),
            ("drop", edits.drop),
            ("absent", edits.absent),
        ):
            for label in labels:
                # A label that was only implied may have been renamed.
                if not self.sources.get(label) and edits.list_names(label)[-1] not in parents:
                    question = suggest(label, [*self.given, *parents])
                    raise InputError(
                        f"{self.path}: {key}: no label file has the name {label!r}{question}: "
                        "correct the name, or remove the line if the label is no longer in the "
                        "dataset"
                    )
        for key, names in (("rename", edits.rename.values()), ("imply", parents)):
            for label in names:
                if label not in self.given:
                    self._check_new(label, f"{self.path}: {key}")
        if self.given and not self.labels:
            raise InputError(f"{self.path}: drop: all labels are dropped: keep at least one")
        if edits.model_fields_set:
            self._check_wanted()
        return self

    def _check_new(self, label: str, place: str) -> None:
        if check_label(label, place) != label:
            raise InputError(f"{place}: {label!r} starts or ends with a space: remove it")
        for other in self.labels if label in self.labels else []:
            if other != label and other.casefold() == label.casefold():
                raise InputError(
                    f"{place}: {label!r} and the label {other!r} differ only in case: use one name"
                )

    def _check_wanted(self) -> None:
        for label in map(normalize, self.wanted):
            if label in self.edits.drop:
                raise InputError(
                    f"data.labels: {label!r} is dropped in {self.path}: remove it from one of them"
                )
            if label in self.edits.rename:
                new = self.edits.list_names(label)[-1]
                raise InputError(
                    f"data.labels: {label!r} is renamed to {new!r} in {self.path}: write {new!r}"
                )
            if label not in self.labels:
                raise InputError(
                    f"data.labels: the dataset has no label {label!r}"
                    f"{suggest(label, self.labels)}: correct the name"
                )

    def fill(self, label: str, targets: Mapping[str, np.ndarray]) -> np.ndarray | int:
        """Return the targets of a label for the photos of an import that does not list it.

        If the import lists labels that are merged with this label, they decide: the label is then
        unknown where the merged label would be unknown, and absent elsewhere.

        Args:
            label: Label of a label file of another import.
            targets: Label -> 1, 0 or `UNKNOWN` for each photo of the import, int8 [num_photos].
        """
        others = self.sources[self.edits.list_names(label)[-1]].intersection(targets)
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
