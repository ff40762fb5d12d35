"""Pages of the questions in one browser tab, and the effect of each key."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from phototag.review.session import ReviewSession

OPPOSITE = {"yes": "no", "no": "yes"}


@dataclass
class View:
    """The page on the screen of one browser tab.

    Attributes:
        size: Largest number of photos on a page; 1 or, in a grid, more.
        session: Session whose questions are shown.
        label: Label whose questions are shown; "" for all labels.
        pages: Positions of the questions of each page in the queue of the session.
        current: Index of the page on the screen; None if no question is left.
        token: Random name of the page that was drawn last.
    """

    size: int
    session: ReviewSession
    label: str = ""
    pages: list[list[int]] = field(default_factory=list)
    current: int | None = None
    token: str = ""

    def __post_init__(self) -> None:
        self._make_pages()

    def update(self, session: ReviewSession) -> None:
        """Prepare the next drawing; if the evidence has changed, start with its first question."""
        renewed = self.session.evidence is not session.evidence
        self.session, self.token = session, secrets.token_hex(8)
        if renewed:
            self._make_pages()
        if self.current is None:
            self.current = self._find_open()

    def handle(self, event: Mapping[str, Any]) -> str:
        """Apply a key press and return a note for the reviewer.

        Args:
            event: Token of the page on the screen (`page`), name of the key (`action`), chosen
                label (`value`) and, in a grid, the mark of each photo (`marks`). A key press with
                the token of another page is ignored.
        """
        action = event["action"]
        if event["page"] != self.token:
            return ""
        if action == "undo":
            return self._undo()
        if action == "select":
            self.label = event["value"]
            self._make_pages()
        elif self.current is not None and action in ("back", "skip"):
            self.current += 1 if action == "skip" else -1
        elif self.current is not None:
            self._answer(self.pages[self.current], action, event["marks"])
        return ""

    def _answer(self, page: list[int], action: str, marks: Mapping[str, str]) -> None:
        words = {"exception": OPPOSITE.get(action, action), "unsure": "unsure"}
        answers = {}
        for position in page:
            question, mark = self.session.queue[position], marks.get(str(position))
            # In a grid, "the rest" are the photos without a mark and without an answer.
            if mark != "" or self.session.find_answer(question) is None:
                answers[question] = words.get(mark or "", action)
        self.session.answer(answers)
        self.session = self.session.reload()
        self.current = self._find_open()

    def _undo(self) -> str:
        undone = self.session.undo()
        if not undone:
            return "There is no answer to undo."
        self.session = self.session.reload()
        entries = {answer.entry for answer in undone}
        queue = map(self.session.entry, self.session.queue)
        positions = {position for position, entry in enumerate(queue) if entry in entries}
        if not any(positions.intersection(page) for page in self.pages):
            self.label = ""
            self._make_pages()
        found = (n for n, page in enumerate(self.pages) if positions.intersection(page))
        self.current = next(found, self.current)
        hidden = f"Undone, but not on this page: {len(undone)} about {undone[0].label}."
        return "" if positions else hidden

    def _make_pages(self) -> None:
        """Divide the questions about the chosen label into pages; a grid omits answered ones."""
        labels, queue = self.session.evidence.photos.labels, self.session.queue
        if self.label not in labels:
            self.label = ""
        listed = range(len(queue)) if self.size == 1 else self.session.list_open()
        chosen = [n for n in listed if self.label in ("", labels[queue[n].label])]
        self.pages = self.session.list_pages(chosen, self.size)
        self.current = None

    def _find_open(self) -> int | None:
        """Return the next page with an unanswered question; after the last page, start again."""
        open_ = set(self.session.list_open())
        found = [n for n, page in enumerate(self.pages) if open_.intersection(page)]
        after = -1 if self.current is None else self.current
        return next((n for n in found if n > after), next(iter(found), None))
