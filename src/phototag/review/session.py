"""Review session of one reviewer: open questions, answers and undo."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from filelock import FileLock

from phototag.base.errors import InputError
from phototag.base.files import report_failed_write
from phototag.review.evidence import Evidence
from phototag.review.rankings import Question
from phototag.verification.corrections import (
    COLUMNS,
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
        return latest_answers(self._read())

    def _read(self) -> list[Answer]:
        """Return all rows of the corrections file, with the present names of renamed labels."""
        renamed = self.evidence.renamed
        rows = read_answers(self.path).values()
        return [replace(row, label=renamed.get(row.label, row.label)) for row in rows]

    def reload(self) -> "ReviewSession":
        """Return a copy of the session that reads the corrections file again."""
        return replace(self)

    def list_open(self) -> list[int]:
        """Return the positions of the unanswered questions in `queue`."""
        return [n for n, question in enumerate(self.queue) if self.find_answer(question) is None]

    def list_pages(self, positions: Iterable[int], size: int) -> list[list[int]]:
        """Group positions in `queue` into pages, in the order of their first questions.

        All questions of a page are about the same label, and the dataset has the same target for
        all its photos. A page has at most `size` questions.
        """
        pages: list[list[int]] = []
        unfinished: dict[tuple[int, int], list[int]] = {}
        for position in positions:
            question = self.queue[position]
            given = int(self.evidence.photos.targets[question.photo, question.label])
            page = unfinished.get((question.label, given))
            if page is None or len(page) == size:
                page = unfinished[question.label, given] = []
                pages.append(page)
            page.append(position)
        return pages

    def find_answer(self, question: Question) -> Answer | None:
        """Return the answer to a question, or None if there is no answer or it was undone."""
        return self._latest.get(self.entry(question))

    def state(self, question: Question) -> str:
        """Return the latest answer or, if there is none, the dataset's label: yes, no or unsure."""
        answer = self.find_answer(question)
        given = self.evidence.photos.targets[question.photo, question.label]
        return answer.answer if answer else WORDS[int(given)]

    def answer(self, answers: Mapping[Question, str]) -> None:
        """Store answers (yes, no or unsure), which `undo` undoes together."""
        files, current = self.evidence.photos.files, self.reload()
        self._append(
            Answer(
                files[question.photo],
                *self.entry(question),
                answer,
                current.state(question),  # another page may have changed the label
                self.who,
                "",
                self.ranking,
            )
            for question, answer in answers.items()
        )

    def undo(self) -> list[Answer]:
        """Undo the reviewer's last answers, and return them; empty if there are none.

        Answers that were stored together have the same time, and are undone together.
        """
        given = self._read()
        own = [answer for answer in drop_undone(given) if answer.who == self.who]
        last = [one for one in own if (one.when, one.label) == (own[-1].when, own[-1].label)]
        present = latest_answers(given)
        self._append(
            replace(one, answer=one.old, old=present[one.entry].answer, ranking=UNDO)
            for one in reversed(last)
        )
        return last[::-1]

    def _append(self, answers: Iterable[Answer]) -> None:
        """Append answers, which all get the same time."""
        rows = list(answers)
        if rows:
            when = self._choose_time({row.entry for row in rows})
            append_answer(self.path, *(replace(row, when=when) for row in rows))

    def _choose_time(self, entries: Set[tuple[str, str]]) -> str:
        """Return the present time, or a later one if the corrections file requires it.

        The time must be later than those of all rows about the entries, because answers are sorted
        by time and the clock of another reviewer may be fast. It must also differ from those of
        the reviewer's other rows, because `undo` undoes answers with the same time together.
        """
        when = _floor(datetime.now(UTC))
        for row in self._read():  # sorted by time
            about = row.entry in entries and row.time >= when
            if about or (row.who == self.who and row.time == when):
                when = _floor(row.time + timedelta(milliseconds=1))
        return when.isoformat(timespec="milliseconds")

    def entry(self, question: Question) -> tuple[str, str]:
        """Return the SHA-256 of the photo and the label of a question."""
        photos = self.evidence.photos
        return photos.sha256[question.photo], photos.labels[question.label]


def _floor(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def append_answer(path: Path, *answers: Answer) -> None:
    """Lock a corrections file, append answers, and flush the file to disk.

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
        header = ",".join(COLUMNS)
        if text and text.splitlines()[0] != header:
            raise InputError(
                f"{path}: the first line must be {header}: save the file as UTF-8, with commas and "
                "with these columns in this order"
            )
        writer = csv.writer(file, lineterminator="\n")
        if not text:
            writer.writerow(COLUMNS)
        elif not text.endswith("\n"):
            file.write("\n")
        writer.writerows(map(astuple, answers))
        file.flush()
        os.fsync(file.fileno())
