import re
from dataclasses import astuple, replace
from pathlib import Path

import pandas as pd
import pytest

from phototag.base.errors import InputError
from phototag.base.files import write_json
from phototag.review.evidence import Evidence, read_evidence
from phototag.review.rankings import Question, rank_errors
from phototag.review.session import ReviewSession, append_answer
from phototag.verification.corrections import COLUMNS, Answer, read_answers
from tests.forks import fork
from tests.reviews import read_rows

SHIPPED = Path(__file__).resolve().parents[2] / "data/corrections.csv"


def open_session(project: Path, evidence: Evidence, who: str = "ann") -> ReviewSession:
    path = project / "data/corrections.csv"
    return ReviewSession(path, evidence, rank_errors(evidence), "errors", who)


def undo(session: ReviewSession) -> list[Question]:
    """Undo the last answers, and return their questions."""
    photos = session.evidence.photos
    return [
        Question(photos.sha256.index(answer.sha256), photos.labels.index(answer.label))
        for answer in session.undo()
    ]


def test_answered_question_is_closed_in_every_session(project: Path, evidence: Evidence) -> None:
    session = open_session(project, evidence)
    first, second = session.queue[:2]
    given = session.state(first)
    session.answer({first: "unsure"})
    open_session(project, evidence, "bob").answer({second: "yes"})
    after = session.reload()
    assert after.list_open() == list(range(2, len(session.queue)))
    assert (after.state(first), after.state(second)) == ("unsure", "yes")
    file, label = evidence.photos.files[first.photo], evidence.photos.labels[first.label]
    assert read_rows(project)[0] == [file, label, "unsure", given, "ann", "errors"]
    assert read_rows(project)[1][4] == "bob"


def test_undo_appends_the_old_values_of_own_answers(project: Path, evidence: Evidence) -> None:
    session = open_session(project, evidence)
    first, second, third = session.queue[:3]
    given = [session.state(question) for question in (first, second)]
    session.answer({first: "unsure"})
    session.answer({second: "unsure"})
    open_session(project, evidence, "bob").answer({third: "yes"})
    written = (project / "data/corrections.csv").read_bytes()
    assert undo(session) == [second]
    assert undo(session) == [first]
    assert session.undo() == []
    after = session.reload()
    assert after.list_open() == [0, 1, *range(3, len(session.queue))]
    assert [after.state(question) for question in (first, second)] == given
    assert (project / "data/corrections.csv").read_bytes().startswith(written)
    assert [row[2:] for row in read_rows(project)[3:]] == [
        [state, "unsure", "ann", "undo"] for state in reversed(given)
    ]
    # A second answer can be undone too.
    after.answer({first: "unsure"})
    assert undo(after) == [first]


@pytest.mark.parametrize("column", ["sha256", "label"])
def test_undo_includes_answers_about_photos_and_labels_that_are_gone(
    project: Path, evidence: Evidence, column: str
) -> None:
    session = open_session(project, evidence)
    path = project / "data/corrections.csv"
    append_answer(path, make("unsure", who="ann", **{column: "gone"}))
    (undone,) = session.undo()
    assert getattr(undone, column) == "gone"
    assert [row[2:] for row in read_rows(project)[1:]] == [["no", "unsure", "ann", "undo"]]
    assert session.undo() == []


def test_old_value_includes_answers_of_other_sessions(project: Path, evidence: Evidence) -> None:
    question = Question(0, 0)
    one, other = (open_session(project, evidence, who) for who in ("ann", "bob"))
    assert one.state(question) == other.state(question)
    one.answer({question: "unsure"})
    other.answer({question: "yes"})
    assert [row[3] for row in read_rows(project)][1] == "unsure"


def test_undo_removes_only_the_last_answer_of_the_annotator(
    project: Path, evidence: Evidence
) -> None:
    ann, bob = (open_session(project, evidence, who) for who in ("ann", "bob"))
    question = Question(0, 0)
    given = ann.state(question)
    ann.answer({question: "no"})
    ann.answer({question: "yes"})
    bob.answer({question: "unsure"})
    assert undo(ann) == [question]
    assert ann.reload().state(question) == "unsure"  # bob's answer
    assert undo(bob) == [question]
    assert ann.reload().state(question) == "no"  # ann's first answer
    assert bob.undo() == []
    assert undo(ann) == [question]
    assert ann.reload().find_answer(question) is None
    assert ann.reload().state(question) == given
    # If a row is undone by two pages at once, one of the two rows has no effect.
    append_answer(ann.path, list(read_answers(ann.path).values())[-1])
    assert ann.reload().find_answer(question) is None


def test_answer_after_one_with_a_later_time_counts(project: Path, evidence: Evidence) -> None:
    """The clock of the other machine is ahead."""
    session, question = open_session(project, evidence), Question(0, 0)
    entry = evidence.photos.sha256[0], evidence.photos.labels[0]
    later = replace(make(), sha256=entry[0], label=entry[1], who="bob", when="2999-01-01")
    append_answer(session.path, later)
    session.answer({question: "no"})
    assert session.reload().state(question) == "no"
    assert undo(session) == [question]
    assert session.reload().state(question) == "yes"


def make(answer: str = "yes", **changes: str) -> Answer:
    first = Answer("images/im1.jpg", "a", "cat", answer, "no", "ann", "2025-01-01T10:00Z", "errors")
    return replace(first, **changes)


def test_appended_answers_are_read_by_any_csv_reader(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    answers = [make(), make("no", label='red, "dark"', who="Bé"), make("unsure", label="dog")]
    append_answer(path, *answers)
    assert list(read_answers(path).values()) == answers
    table = pd.read_csv(path, dtype=str)
    assert table.to_numpy().tolist() == [list(astuple(answer)) for answer in answers]


def test_shipped_file_is_empty_and_takes_answers(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    path.write_bytes(SHIPPED.read_bytes())
    assert path.read_text() == ",".join(COLUMNS) + "\n"
    append_answer(path, make())
    assert read_answers(path) == {2: make()}


def test_missing_line_end_is_added(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    append_answer(path, make())
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    append_answer(path, make("no"))
    assert list(read_answers(path).values()) == [make(), make("no")]


def append_many(path: Path, who: str) -> None:
    for number in range(20):
        append_answer(path, make(file="x" * 3000, sha256=str(number), who=who))


def test_two_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    pages = [fork(append_many, path, who) for who in "ab"]
    for page_ in pages:
        page_.join(120)
    answers = list(read_answers(path).values())
    for who in "ab":
        assert [a.sha256 for a in answers if a.who == who] == [str(n) for n in range(20)]


def test_file_with_other_separators_is_not_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    append_answer(path, make())
    path.write_bytes(path.read_text().replace(",", ";").encode("utf-16"))
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"save the file as UTF-8, with commas"):
        append_answer(path, make("no"))
    assert path.read_bytes() == before


def test_answers_stored_together_are_undone_together(project: Path, evidence: Evidence) -> None:
    ann, bob = (open_session(project, evidence, who) for who in ("ann", "bob"))
    first, second, third, fourth = (Question(photo, 0) for photo in range(4))
    ann.answer({first: "unsure"})
    bob.answer({second: "yes"})
    ann.answer({second: "no", third: "unsure"})
    bob.answer({fourth: "no", third: "no"})
    assert set(undo(ann)) == {second, third}
    after = ann.reload()
    assert [after.state(question) for question in (first, second, third, fourth)] == [
        "unsure",
        "yes",
        "no",
        "no",
    ]
    assert undo(ann) == [first]
    assert ann.undo() == []
    assert set(undo(bob)) == {third, fourth}


def test_times_of_a_fast_clock_do_not_join_answers(project: Path, evidence: Evidence) -> None:
    """Bob's clock is ahead, so the times of ann's answers about the same photos follow his."""
    ann, bob = (open_session(project, evidence, who) for who in ("ann", "bob"))
    questions = ann.queue[:2]
    bob.answer(dict.fromkeys(questions, "yes"))
    path = project / "data/corrections.csv"
    path.write_text(re.sub(r"(?m)2\d{3}-\d\d-\d\d(?=T)", "2999-01-01", path.read_text()))
    for question in questions:
        ann.answer({question: "no"})
    assert undo(ann) == [questions[1]]
    ann.answer({questions[1]: "unsure"})
    assert ann.reload().state(questions[1]) == "unsure"
    assert undo(ann) == [questions[1]]
    assert undo(ann) == [questions[0]]
    assert [ann.reload().state(question) for question in questions] == ["yes", "yes"]


def test_pages_have_one_label_and_one_target(project: Path, evidence: Evidence) -> None:
    queue = [Question(photo, label) for photo in range(12) for label in (2, 0)]
    session = replace(open_session(project, evidence), queue=queue)
    pages = session.list_pages(range(4, 24), 3)
    assert sorted(position for page_ in pages for position in page_) == list(range(4, 24))
    kinds = []
    for positions in pages:
        assert positions == sorted(positions)
        [kind] = {
            (queue[n].label, int(evidence.photos.targets[queue[n].photo, queue[n].label]))
            for n in positions
        }
        kinds.append(kind)
    assert [page_[0] for page_ in pages] == sorted(page_[0] for page_ in pages)
    # Only the last page of each kind may have fewer than three questions.
    for n, kind in enumerate(kinds):
        assert len(pages[n]) == 3 or kind not in kinds[n + 1 :]
    assert session.list_pages(range(24), 1) == [[n] for n in range(24)]


def test_answers_about_old_names_count_for_renamed_labels(
    project: Path, evidence: Evidence
) -> None:
    """Azure was renamed to sky and sky to blue; pink was merged into red, and mauve dropped."""
    names = {"azure": "blue", "sky": "blue"}
    write_json(project / "reports/resize/summary.json", {"renamed_labels": names})
    renamed = read_evidence(project)
    path = project / "data/corrections.csv"
    for row, label in enumerate(["azure", "sky", "pink", "mauve"]):
        changes = {"sha256": evidence.photos.sha256[row], "label": label}
        append_answer(path, make("unsure", when=f"2025-01-01T10:0{row}Z", **changes))
    session = open_session(project, renamed)
    blue, red = (renamed.photos.labels.index(name) for name in ("blue", "red"))
    found = [session.find_answer(Question(row, blue)) for row in range(3)]
    assert [answer and answer.answer for answer in found] == ["unsure", "unsure", None]
    assert session.find_answer(Question(2, red)) is None
    assert [answer.label for answer in (*session.undo(), *session.undo())] == ["mauve", "pink"]
    assert undo(session) == [Question(1, blue)]
    assert undo(session) == [Question(0, blue)]
    assert session.reload().find_answer(Question(0, blue)) is None
