"""Targets of photos after the edits in data/labels.yaml and the answers of reviewers.

They are applied in this order: answers about old labels of a merge, renames and merges, `absent`,
the other answers, `imply`, `drop`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from phototag.dataset.targets import UNKNOWN
from phototag.decoding.photos import Photo
from phototag.verification.corrections import Answer, apply_answers, latest_answers, report_answer
from phototag.verification.edited_labels import EditedLabels, merge_columns
from phototag.verification.labels import UNLISTED
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
        edited: Edits. Those about labels that do not exist have no effect.
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
        columns[label] = merge_columns([unlisted, *parts, *(columns[old] for old in olds)])
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
    changed |= {f"drop {label}": given[label] == 1 for label in edits.drop if label in given}
    for label in edits.absent:
        if label in final:
            changed[f"absent {label}"] = (given[label] == UNLISTED) & (final[label] == 0)
    counts = {edit: int((rows & kept).sum()) for edit, rows in changed.items()}
    wanted = {*edited.learned}
    learned = {label: column for label, column in final.items() if label in wanted}
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
        elif answer.label in edited.edits.rename.keys() - edited.renamed:
            early.setdefault(answer.label, {})[line] = answer
        else:
            late[line] = replace(answer, label=final)
    reason = f"the label is dropped in {edited.path}"
    problems = [
        report_answer(answer, path, dropped[answer], reason)
        for answer in latest_answers(dropped).values()
    ]
    return early, late, problems


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
        implied = merge_columns([*carried.values()])
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
