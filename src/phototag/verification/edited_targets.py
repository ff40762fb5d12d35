"""Targets of photos after the edits in data/labels.yaml and the answers of reviewers.

The labels are computed one after another. Each label is merged from the labels that are renamed to
it, then implied, then filled if no import lists it, and then set to the answers about it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from phototag.dataset.targets import UNKNOWN
from phototag.decoding.photos import Photo
from phototag.verification.corrections import WORDS, Answer, locate_answers, note_corrections
from phototag.verification.edited_labels import EditedLabels, merge_columns
from phototag.verification.labels import UNLISTED
from phototag.verification.problems import Problem

Targets = dict[str, np.ndarray]


@dataclass(frozen=True)
class LabelledPhotos:
    """The photos of a dataset with their final targets.

    Attributes:
        targets: Final label -> 1, 0 or `UNKNOWN` for each photo, int8 [num_photos].
        photos: Decisions about the photos, with remarks about corrections, [num_photos].
        problems: Answers that were not applied.
        counts: Edit, such as "drop cat" -> number of photos whose labels it changes.
    """

    targets: Targets
    photos: list[Photo]
    problems: list[Problem]
    counts: dict[str, int]


def apply_edits(
    edited: EditedLabels,
    targets: Mapping[str, np.ndarray],
    photos: Sequence[Photo],
    answers: Mapping[int, Answer],
) -> LabelledPhotos:
    """Apply the edits and the answers of reviewers to the targets of the label files.

    An answer about the old name of a renamed label counts for the new label. An answer about one of
    several merged labels changes this label before the merge. An answer about an implied label wins
    against the implication.

    Args:
        edited: Edits. Those about labels that do not exist have no effect.
        targets: Label of a label file -> 1, 0, `UNKNOWN` or `UNLISTED` for each photo, int8
            [num_photos].
        photos: Decisions about the photos, [num_photos].
        answers: Line number -> answer, as returned by `read_answers`.
    """
    edits, names = edited.edits, edited.renamed
    finals = {
        line: replace(answer, label=names.get(answer.label, answer.label))
        for line, answer in answers.items()
    }
    learned = edited.trace(edited.learned)
    located, problems = locate_answers(finals, photos, learned)
    columns: Targets = {}
    listed: Targets = {}  # targets before implications, `absent` and answers
    corrections: dict[int, list[str]] = {}
    used = learned | edited.trace(edits.drop)  # dropped labels are counted, and may imply others
    for label in [name for name in edited.inputs if name in used]:
        parts = [targets[label]] if label in targets else []
        children = [name for name in edited.inputs[label] if name not in edits.rename]
        parts += [columns[old] for old in edited.inputs[label] if old in edits.rename]
        column = merge_columns([np.full(len(photos), UNLISTED, np.int8), *parts])
        columns[label], listed[label] = column, column.copy()
        for child in children:
            column[(columns[child] == UNKNOWN) & (column == UNLISTED)] = UNKNOWN
            column[columns[child] == 1] = 1
        if label not in edits.rename:
            column[column == UNLISTED] = 0 if label in edits.absent else UNKNOWN
        for row, target in located.get(label, {}).items():
            if column[row] != target:
                column[row] = target
                corrections.setdefault(row, []).append(f"{label} {WORDS[target]}")

    changed = {
        f"rename {old}: {new}": columns[old] == 1
        for old, new in edits.rename.items()
        if old in columns
    }
    for child, parents in edits.imply.items():
        for parent in parents:
            if child in columns and parent in columns:
                implied = (columns[child] == 1) & (listed[parent] != 1) & (columns[parent] == 1)
                changed[f"imply {child}: {parent}"] = implied
    changed |= {f"drop {label}": columns[label] == 1 for label in edits.drop if label in columns}
    for label in edits.absent:
        if label in columns:
            changed[f"absent {label}"] = (listed[label] == UNLISTED) & (columns[label] == 0)
    kept = np.array([photo.decision != "rejected" for photo in photos], bool)
    counts = {edit: int((rows & kept).sum()) for edit, rows in changed.items()}
    final = {label: columns[label] for label in edited.labels if label in edited.learned}
    return LabelledPhotos(final, note_corrections(photos, corrections), problems, counts)
