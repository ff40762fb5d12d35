"""Corrections: reviewers' answers about single labels, read from data/corrections.csv.

The file has one row per answer, and rows are only appended. Photos are identified by their content,
so an answer also applies to renamed photos and to copies. The label files are not changed.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path

from phototag.base.errors import InputError
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.photos import Photo
from phototag.verification.listing import read_listing
from phototag.verification.problems import Problem

ANSWERS = {"yes": 1, "no": 0, "unsure": UNKNOWN}
WORDS = {target: answer for answer, target in ANSWERS.items()}
CORRECTIONS = Path("data/corrections.csv")
UNDO = "undo"  # value of `ranking` in a row that undoes an answer


@dataclass(frozen=True)
class Answer:
    """One row of the corrections file: a reviewer's answer about a photo and a label.

    Attributes:
        file: Path of the source file; for information only.
        sha256: SHA-256 of the source file, which identifies the photo.
        label: Label to which the answer applies.
        answer: yes | no | unsure.
        old: Value of the target before this answer: yes | no | unsure.
        who: Name of the reviewer.
        when: Time of the answer in ISO 8601; UTC if no time zone is given.
        ranking: Name of the ranking that suggested the photo for review. A row with `UNDO` undoes
            the reviewer's last answer about the photo and the label.
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
        """Key of the corrected target: SHA-256 of the photo, and the label."""
        return self.sha256, self.label

    @property
    def time(self) -> datetime:
        """Time of the answer, with a time zone."""
        time = datetime.fromisoformat(self.when)
        return time if time.tzinfo else time.replace(tzinfo=UTC)


COLUMNS = tuple(field.name for field in fields(Answer))


def read_answers(path: Path) -> dict[int, Answer]:
    """Read the corrections file and return line number -> answer, with the oldest answer first.

    Answers are sorted by time, because git may merge the rows of two reviewers in any order;
    answers with equal times keep the order of the file. A missing file yields an empty result.

    Raises:
        InputError: The file is not a valid corrections file; the message contains the line number.
    """
    return parse_answers(path.read_bytes(), str(path)) if path.exists() else {}


def parse_answers(data: bytes, path: str) -> dict[int, Answer]:
    """Parse the content of a corrections file; see `read_answers`. Errors start with `path`."""
    table = read_listing(data, path)
    names = ",".join(COLUMNS)
    if table.columns and not set(COLUMNS) <= set(table.columns):
        raise InputError(f"{path}:{table.header_line}: the first line must be {names}")
    answers, times = {}, {}
    for row in table.rows:
        place = f"{path}:{row.line}"
        answer = Answer(*[row.cells.get(name, "") for name in COLUMNS])
        if row.extra or not (answer.sha256 and answer.label):
            raise InputError(f"{place}: expected the cells {names}: fix or remove the line")
        if answer.answer not in ANSWERS:
            raise InputError(
                f"{place}: column answer is {answer.answer!r}: write yes, no or unsure"
            )
        try:
            times[row.line] = answer.time
        except ValueError:
            raise InputError(
                f"{place}: column when is {answer.when!r}: write a time such as 2025-01-31T12:00Z"
            ) from None
        answers[row.line] = answer
    return {line: answers[line] for line in sorted(answers, key=times.__getitem__)}


def drop_undone(answers: Iterable[Answer]) -> list[Answer]:
    """Return the answers that were not undone; `answers` is sorted by time."""
    kept: list[Answer] = []
    for answer in answers:
        if answer.ranking != UNDO:
            kept.append(answer)
            continue
        question = (answer.entry, answer.who)
        rows = [row for row, one in enumerate(kept) if (one.entry, one.who) == question]
        if rows:
            del kept[rows[-1]]
    return kept


def latest_answers(answers: Iterable[Answer]) -> dict[tuple[str, str], Answer]:
    """Return, for each photo and label, the last answer that was not undone."""
    return {answer.entry: answer for answer in drop_undone(answers)}


def locate_answers(
    answers: Mapping[int, Answer], photos: Sequence[Photo], labels: Collection[str]
) -> tuple[dict[str, dict[int, int]], list[Problem]]:
    """Find the photos to which the last answers apply: all files that have the same content.

    Args:
        answers: Line number -> answer, as returned by `read_answers`.
        photos: Decisions about the files, [num_files].
        labels: Labels that are learned, or that determine labels that are learned.

    Returns:
        Label -> row of the file -> target; and a problem for each answer that cannot be applied.
    """
    rows: dict[str, list[int]] = {}
    for row, photo in enumerate(photos):
        if photo.decision != "rejected":
            rows.setdefault(photo.sha256, []).append(row)
    located: dict[str, dict[int, int]] = {}
    problems = []
    lines = {answer: line for line, answer in answers.items()}
    for answer in latest_answers(answers.values()).values():
        found = rows.get(answer.sha256, []) if answer.label in labels else []
        located.setdefault(answer.label, {}).update(dict.fromkeys(found, ANSWERS[answer.answer]))
        if not found:
            known = answer.label in labels
            reason = "no photo has this content" if known else "the label is not learned"
            detail = f"{answer.file}, {answer.label} {answer.answer}: {reason}"
            line = lines[answer]
            problems.append(Problem(str(CORRECTIONS), line, "answer not applied", detail, "noted"))
    return located, problems


def note_corrections(photos: Sequence[Photo], changes: Mapping[int, list[str]]) -> list[Photo]:
    """Add remarks such as `corrected: cat yes, dog no` to photos, given row -> changed targets."""
    corrected = list(photos)
    for row, texts in changes.items():
        # Semicolons separate remarks, so they are replaced inside a remark.
        remark = f"corrected: {', '.join(texts)}".replace(";", ",")
        reason = "; ".join(filter(None, [photos[row].reason, remark]))
        corrected[row] = replace(photos[row], reason=reason)
    return corrected
