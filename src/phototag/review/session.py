"""Review session of one reviewer: open questions, answers and undo."""

import csv
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from filelock import FileLock

from phototag.base.errors import InputError
from phototag.base.files import report_failed_write
from phototag.review.evidence import Evidence
from phototag.review.rankings import Question
from phototag.verification.corrections import (
    UNDO,
    WORDS,
    Answer,
    drop_undone,
    latest_answers,
    read_answers,
)


@dataclass(frozen=True)
class ReviewSession:
    """The questions for one reviewer, and the corrections file that stores the answers.

    Attributes:
        path: Path of the corrections file.
        evidence: Labels, scores and features of the photos.
        queue: Questions in the order of the ranking.
        ranking: Name of the ranking that produced `queue`.
        who: Name of the reviewer.
    """

    path: Path
    evidence: Evidence
    queue: Sequence[Question]
    ranking: str
    who: str

    @cached_property
    def _latest(self) -> dict[tuple[str, str], Answer]:
        return latest_answers(read_answers(self.path).values())

    def reload(self) -> "ReviewSession":
        """Return a copy of the session that reads the corrections file again."""
        return replace(self)

    def list_open(self) -> list[int]:
        """Return the positions of the unanswered questions in `queue`."""
        return [n for n, question in enumerate(self.queue) if self.find_answer(question) is None]

    def find_answer(self, question: Question) -> Answer | None:
        """Return the answer to a question, or None if there is no answer or it was undone."""
        return self._latest.get(self._entry(question))

    def state(self, question: Question) -> str:
        """Return the latest answer or, if there is none, the dataset's label: yes, no or unsure."""
        answer = self.find_answer(question)
        given = self.evidence.photos.targets[question.photo, question.label]
        return answer.answer if answer else WORDS[int(given)]

    def answer(self, question: Question, answer: str, ranking: str = "") -> None:
        """Store an answer (yes, no or unsure); `ranking` defaults to the session's ranking."""
        current = self.reload()  # another page may have changed the label
        latest, old = current.find_answer(question), current.state(question)
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        # Answers are sorted by time, and the clock of another reviewer may be fast.
        when = max(when, latest.when) if latest else when
        file = self.evidence.photos.files[question.photo]
        row = (*self._entry(question), answer, old, self.who, when, ranking or self.ranking)
        append_answer(self.path, Answer(file, *row))

    def undo(self) -> Question | None:
        """Undo the reviewer's last answer that is about a photo and a label of the dataset.

        Returns the question whose answer was undone, or None if there is no answer to undo.
        """
        photos, labels = list(self.evidence.photos.sha256), self.evidence.photos.labels
        for answer in reversed(drop_undone(read_answers(self.path).values())):
            if answer.who == self.who and answer.sha256 in photos and answer.label in labels:
                question = Question(photos.index(answer.sha256), labels.index(answer.label))
                self.answer(question, answer.old, UNDO)
                return question
        return None

    def _entry(self, question: Question) -> tuple[str, str]:
        photos = self.evidence.photos
        return photos.sha256[question.photo], photos.labels[question.label]


def append_answer(path: Path, answer: Answer) -> None:
    """Lock a corrections file, append an answer, and flush the file to disk.

    Raises:
        InputError: The file cannot be written, or its first line does not list the columns of an
            answer.
    """
    with (
        report_failed_write(path),
        FileLock(path.with_name(f".{path.name}.lock")),
        path.open("a+", encoding="utf-8", errors="replace", newline="") as file,
    ):
        file.seek(0)
        text = file.read().removeprefix("\ufeff")
        row = asdict(answer)
        header = ",".join(row)
        if text and text.splitlines()[0] != header:
            raise InputError(
                f"{path}: the first line must be {header}: save the file as UTF-8, with commas and "
                "with these columns in this order"
            )
        writer = csv.writer(file, lineterminator="\n")
        if not text:
            writer.writerow(row)
        elif not text.endswith("\n"):
            file.write("\n")
        writer.writerow(row.values())
        file.flush()
        os.fsync(file.fileno())
