"""Corrections: what people answered about single labels, one row an answer.

The source of the photos is never touched. The file only grows, and travels by git; the stage that
reads the label files applies it. A photo is known by its content, so that corrections survive other
names and numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from phototag.base.errors import InputError
from phototag.dataset.manifest import escape_name
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.photos import Photo
from phototag.verification.listing import read_listing
from phototag.verification.problems import Problem

ANSWERS = {"yes": 1, "no": 0, "unsure": UNKNOWN}
WORDS = {target: answer for answer, target in ANSWERS.items()}
UNDO = "undo"  # in place of a ranking: the answer before is taken back


@dataclass(frozen=True)
class Answer:
    """One row: whether a photo carries a label.

    Attributes:
        file: The source file, for people.
        sha256: Of the source file's bytes, which says what photo it is.
        label: The label.
        answer: yes | no | unsure.
        old: What stood there before, in the same words.
        who: Gave the answer.
        when: ISO 8601, with a time zone; without one it counts as UTC.
        ranking: By which the question was asked; `UNDO` where an answer is taken back, and what
            stood there before is the answer.
    """

    file: str
    sha256: str
    label: str
    answer: str
    old: str
    who: str
    when: str
    ranking: str

    @property
    def entry(self) -> tuple[str, str]:
        """The photo's hash and the label, which it is about."""
        return self.sha256, self.label


COLUMNS = tuple(field.name for field in fields(Answer))


@dataclass(frozen=True)
class Change:
    """An entry that is no longer what the label files say: the photo's position, label, answer."""

    photo: int
    label: str
    answer: str


def read_answers(path: Path) -> dict[int, Answer]:
    """Read all answers, by the line on which each stands, the oldest first.

    They are put in order by their time: git joins what two people appended in any order. Of one
    time, the order of the file counts. Without a file there are none.

    Raises:
        InputError: The file is no such CSV; the message names the line.
    """
    return parse_answers(path.read_bytes(), str(path)) if path.exists() else {}


def parse_answers(data: bytes, path: str) -> dict[int, Answer]:
    """Read the file's bytes, as `read_answers` does; `path` is for messages."""
    table = read_listing(data, path)
    if table.rows and not set(COLUMNS) <= set(table.columns):
        raise InputError(
            f"{path}:{table.header_line}: the first line must name the columns {','.join(COLUMNS)}"
        )
    answers, times = {}, {}
    for row in table.rows:
        place, cells = f"{path}:{row.line}", [row.cells.get(name, "") for name in COLUMNS]
        answer = Answer(*cells)
        if row.extra or not (answer.sha256 and answer.label):
            raise InputError(
                f"{place}: no answer: a row is {','.join(COLUMNS)}; mend the line or take it out"
            )
        if answer.answer not in ANSWERS:
            raise InputError(f"{place}: the answer is {answer.answer!r}: write yes, no or unsure")
        try:
            time = datetime.fromisoformat(answer.when)
        except ValueError:
            raise InputError(
                f"{place}: when is {answer.when!r}: write a time such as 2025-01-31T12:00:00+00:00"
            ) from None
        answers[row.line] = answer
        times[row.line] = time if time.tzinfo else time.replace(tzinfo=UTC)
    return {line: answers[line] for line in sorted(answers, key=times.__getitem__)}


def latest_answers(answers: Iterable[Answer]) -> dict[tuple[str, str], Answer]:
    """Return the last answer about each entry: later answers win."""
    return {answer.entry: answer for answer in answers}


def apply_answers(
    targets: Mapping[str, np.ndarray],
    files: Sequence[str],
    photos: Sequence[Photo],
    answers: Mapping[int, Answer],
    place: str,
) -> tuple[list[Change], list[Problem]]:
    """Write the last answer about each entry into the targets, in place.

    An answer holds for every file of the same bytes.

    Args:
        targets: Label -> 1, 0 or `UNKNOWN` for each file, int8 [num_files].
        files: Their names, [num_files].
        photos: What was decided about each, [num_files].
        answers: Of `read_answers`.
        place: The answers' file, for the problems.

    Returns:
        What changed, and the answers that found no place, which are noted.

    Raises:
        InputError: After that, a label is known for no photo.
    """
    rows: dict[str, list[int]] = {}
    for row, photo in enumerate(photos):
        if photo.decision != "rejected":
            rows.setdefault(photo.sha256, []).append(row)
    present, rejected = {escape_name(file) for file in files}, {photo.sha256 for photo in photos}
    changes, problems = [], []
    lines = {answer.entry: line for line, answer in answers.items()}
    for entry, answer in latest_answers(answers.values()).items():
        missing = (
            "a correction of a label that is not learned"
            if answer.label not in targets
            else ""
            if answer.sha256 in rows
            else "a correction of a photo that is rejected"
            if answer.sha256 in rejected
            else "a correction of a photo that has changed"
            if answer.file in present
            else "a correction of a photo that is gone"
        )
        if missing:
            told = f"{answer.file}, {answer.label} {answer.answer}"
            problems.append(Problem(place, lines[entry], missing, told, "noted"))
            continue
        column = targets[answer.label]
        for row in rows[answer.sha256]:
            if column[row] != ANSWERS[answer.answer]:
                column[row] = ANSWERS[answer.answer]
                changes.append(Change(row, answer.label, answer.answer))
    kept = np.sort([row for group in rows.values() for row in group]).astype(int)
    for label in {change.label for change in changes}:
        if (targets[label][kept] == UNKNOWN).all():
            raise InputError(
                f"{place} leaves {label!r} known for no photo: answer yes or no for some, or take "
                "the label out (data.labels names those to learn)"
            )
    return changes, problems


def remark_changes(photos: Sequence[Photo], changes: Sequence[Change]) -> list[Photo]:
    """Say with each photo what was corrected, as one remark more."""
    told: dict[int, list[str]] = {}
    for change in changes:
        # Remarks are told apart by semicolons.
        told.setdefault(change.photo, []).append(
            f"{change.label} {change.answer}".replace(";", ",")
        )
    remarked = list(photos)
    for row, words in told.items():
        remark = f"corrected: {', '.join(words)}"
        reason = photos[row].reason
        remarked[row] = replace(photos[row], reason=f"{reason}; {remark}" if reason else remark)
    return remarked
