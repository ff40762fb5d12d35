"""What was answered so far: which questions are open, what an entry is now, what can be undone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from phototag.review.corrections_file import append_answer
from phototag.review.evidence import Evidence
from phototag.review.rankings import Question
from phototag.verification.corrections import (
    UNDO,
    WORDS,
    Answer,
    latest_answers,
    read_answers,
)


@dataclass(frozen=True)
class Sheet:
    """A person's questions, and the file that takes the answers.

    Made anew for each drawing of the page: another page, or another person's, may have written to
    the file.

    Attributes:
        path: Of the answers.
        evidence: What is known of the photos.
        questions: In their order.
        ranking: The name of that order.
        who: The person.
    """

    path: Path
    evidence: Evidence
    questions: Sequence[Question]
    ranking: str
    who: str

    @cached_property
    def _settled(self) -> dict[tuple[str, str], Answer]:
        return latest_answers(read_answers(self.path).values())

    def list_open(self) -> list[int]:
        """List the positions of the questions that nobody has answered yet."""
        return [
            position
            for position, question in enumerate(self.questions)
            if self.find_answer(question) is None
        ]

    def find_answer(self, question: Question) -> Answer | None:
        """Find the answer to a question, if it was not taken back."""
        answer = self._settled.get(self._entry(question))
        return None if answer is None or answer.ranking == UNDO else answer

    def state(self, question: Question) -> str:
        """Tell what an entry is now: yes, no or unsure."""
        return self._state(question, self._settled)

    def answer(self, question: Question, answer: str) -> None:
        """Keep an answer."""
        self._append(question, answer, self.ranking)

    def undo(self) -> Question | None:
        """Take this person's last answer back, by appending what stood there before.

        Returns:
            What it was about; None where there is nothing to take back.
        """
        last: list[Answer] = []
        for answer in read_answers(self.path).values():
            if answer.who == self.who and answer.ranking != UNDO:
                last.append(answer)
            elif answer.who == self.who and last:
                last.pop()
        labels = self.evidence.photos.labels
        while last:
            taken = last.pop()
            if taken.sha256 in self.evidence.rows and taken.label in labels:
                row, label = self.evidence.rows[taken.sha256], labels.index(taken.label)
                self._append(Question(row, label), taken.old, UNDO)
                return Question(row, label)
        return None

    def _state(self, question: Question, settled: Mapping[tuple[str, str], Answer]) -> str:
        answer = settled.get(self._entry(question))
        given = self.evidence.photos.targets[question.photo, question.label]
        return answer.answer if answer else WORDS[int(given)]

    def _entry(self, question: Question) -> tuple[str, str]:
        photos = self.evidence.photos
        return photos.sha256[question.photo], photos.labels[question.label]

    def _append(self, question: Question, answer: str, ranking: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        file = self.evidence.photos.files[question.photo]
        old = self._state(question, latest_answers(read_answers(self.path).values()))
        row = Answer(file, *self._entry(question), answer, old, self.who, now, ranking)
        append_answer(self.path, row)
