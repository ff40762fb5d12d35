"""Labels of a dataset after the edits in data/labels.yaml.

The edits are applied in this order: answers about old labels of a merge, renames and merges,
`absent`, the other answers, `imply`, `drop`. A label that several imports list is merged import by
import: if an import lists some of the merged labels, its photos lack the others.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from graphlib import TopologicalSorter

import numpy as np

from phototag.base.errors import InputError
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.photos import Photo
from phototag.verification.corrections import Answer, apply_answers, latest_answers, report_answer
from phototag.verification.label_edits import LabelEdits
from phototag.verification.labels import UNLISTED, check_label, normalize, suggest
from phototag.verification.problems import Problem

CONTRADICTION = "answer contradicts an implied label"
Targets = dict[str, np.ndarray]


@dataclass(frozen=True)
class LabelledPhotos:
    """The photos of a dataset with their final targets.

    Attributes:
        targets: Final label -> 1, 0 or `UNKNOWN` for each photo, int8 [num_photos].
        photos: Decisions about the photos, with remarks about corrections, [num_photos].
        problems: Answers that were not applied or that contradict an implication.
        counts: Edit, such as "drop cat" -> number of photos whose labels it changes.
    """

    targets: Targets
    photos: list[Photo]
    problems: list[Problem]
    counts: dict[str, int]


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
        edited = {*self.edits.rename, *self.edits.rename.values(), *self.edits.parents}
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
        """The labels after all edits, sorted like their label files would be."""
        gone = {*self.edits.rename, *self.edits.drop}
        return sorted(self.sources.keys() - gone, key=lambda label: f"{label}.txt")

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
        """Return the object itself if all edits concern existing labels.

        Raises:
            InputError: An edit or `data.labels` names a label that does not exist, the name of a
                new label is invalid, or all labels are dropped.
        """
        edits, parents = self.edits, self.edits.parents
        for key, labels in (
            ("rename", edits.rename),
            ("imply", edits.imply.keys() - parents),
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
        return np.asarray(np.minimum(_merge([targets[other] for other in others]), 0))


def apply_edits(
    edited: EditedLabels,
    targets: Mapping[str, np.ndarray],
    photos: Sequence[Photo],
    answers: Mapping[int, Answer],
    path: str,
) -> LabelledPhotos:
    """Apply the edits and the answers of reviewers to the targets of the label files.

    An answer about the old name of a renamed label counts for the new label. An answer about one of
    several merged labels changes this label before the merge. An answer about an implied label wins
    against the implication.

    Args:
        edited: Edits, checked with `EditedLabels.check`.
        targets: Label of a label file -> 1, 0, `UNKNOWN` or `UNLISTED` for each photo, int8
            [num_photos].
        photos: Decisions about the photos, [num_photos].
        answers: Line number -> answer, as returned by `read_answers`.
        path: Path of the corrections file, which is included in the returned problems.
    """
    edits, kept = edited.edits, np.array([photo.decision != "rejected" for photo in photos], bool)
    early, late, problems = _divide_answers(edited, answers, path)
    columns: Targets = {}
    for label, olds in edited.merged.items():
        parts = [targets[label]] if label in targets else []
        unlisted = np.full(len(photos), UNLISTED, np.int8)
        columns[label] = _merge([unlisted, *parts, *(columns[old] for old in olds)])
        if label in early:
            photos, found = apply_answers(columns, photos, early[label], path)
            problems += found
    given = {label: column.copy() for label, column in columns.items()}

    # Labels that are not in `data.labels` were not read, unless they determine a label that is.
    read = {label for label in columns if edited.sources[label].intersection(targets)}
    read.update(*(edits.ancestors.get(label, ()) for label in [*read]))
    final = {label: columns[label] for label in edited.labels if label in read}
    for label, column in final.items():
        column[column == UNLISTED] = 0 if label in edits.absent else UNKNOWN
    photos, found = apply_answers(final, photos, late, path)
    problems += found
    before = {label: column.copy() for label, column in final.items()}
    problems += _imply(edited, given, final, photos, late, path)

    changed = {f"rename {old}: {new}": given[old] == 1 for old, new in edits.rename.items()}
    for child, parents in edits.imply.items():
        for parent in parents:
            if child in final and parent in final:
                implied = (final[child] == 1) & (before[parent] != 1) & (final[parent] == 1)
                changed[f"imply {child}: {parent}"] = implied
    changed |= {f"drop {label}": given[label] == 1 for label in edits.drop}
    for label in edits.absent:
        if label in final:
            changed[f"absent {label}"] = (given[label] == UNLISTED) & (final[label] == 0)
    counts = {edit: int((rows & kept).sum()) for edit, rows in changed.items()}
    learned = {label: column for label, column in final.items() if label in edited.learned}
    return LabelledPhotos(learned, list(photos), problems, counts)


def _divide_answers(
    edited: EditedLabels, answers: Mapping[int, Answer], path: str
) -> tuple[dict[str, dict[int, Answer]], dict[int, Answer], list[Problem]]:
    """Divide the answers into those before and after merges; list those about dropped labels.

    Returns:
        Old label of a merge -> line number -> answer; line number -> answer about a final label;
        and a problem for each answer about a dropped label.
    """
    early: dict[str, dict[int, Answer]] = {}
    late, dropped = {}, {}
    for line, answer in answers.items():
        final = edited.edits.list_names(answer.label)[-1]
        if final in edited.edits.drop:
            dropped[answer] = line
        elif edited.sources.get(answer.label) == edited.sources.get(final):
            late[line] = replace(answer, label=final)
        else:
            early.setdefault(answer.label, {})[line] = answer
    reason = f"the label is dropped in {edited.path}"
    problems = [
        report_answer(answer, path, dropped[answer], reason)
        for answer in latest_answers(dropped).values()
    ]
    return early, late, problems


def _merge(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Return 1 if any target is 1, else `UNKNOWN` if any is, else 0 if any is, else `UNLISTED`."""
    merged = np.full_like(columns[0], UNLISTED)
    for value in (0, UNKNOWN, 1):
        for column in columns:
            merged[column == value] = value
    return merged


def _imply(
    edited: EditedLabels,
    given: Mapping[str, np.ndarray],
    final: Targets,
    photos: Sequence[Photo],
    answers: Mapping[int, Answer],
    path: str,
) -> list[Problem]:
    """Set the targets of implied labels, in place, on photos without an answer about them.

    Args:
        edited: Edits.
        given: Label -> targets before `absent` and the answers, int8 [num_photos].
        final: Label -> targets after `absent` and the answers, int8 [num_photos].
        photos: Decisions about the photos, [num_photos].
        answers: Line number -> answer about a final label.
        path: Path of the corrections file.

    Returns:
        A problem for each answer "no" about a label that another label of the photo implies.
    """
    latest = latest_answers(answers.values())
    lines = {answer: line for line, answer in answers.items()}
    before = {label: column.copy() for label, column in final.items()}
    problems = {}
    for parent in sorted(edited.edits.parents & final.keys()):
        children = [label for label, found in edited.edits.ancestors.items() if parent in found]
        carried = {child: before[child] for child in children if child in before}
        implied = _merge([*carried.values()])
        found = [latest.get((photo.sha256, parent)) for photo in photos]
        free = np.array([answer is None for answer in found], bool)
        column = final[parent]
        # `absent` is an assumption: it does not overrule a child that may be present.
        column[free & (given[parent] == UNLISTED) & (implied == UNKNOWN)] = UNKNOWN
        column[free & (implied == 1)] = 1
        for row in np.flatnonzero(~free & (implied == 1) & (column == 0)).tolist():
            answer = found[row]
            child = next(child for child, targets in carried.items() if targets[row] == 1)
            if answer and photos[row].decision != "rejected":
                reason = f"{child} implies {parent} in {edited.path}; the answer was applied"
                problems[answer] = report_answer(answer, path, lines[answer], reason, CONTRADICTION)
    return list(problems.values())
