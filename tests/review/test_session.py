from pathlib import Path

import pytest

from phototag.review.evidence import Evidence, read_evidence
from phototag.review.rankings import Question, rank_errors
from phototag.review.session import ReviewSession
from tests.reviews import make_review, read_rows


@pytest.fixture
def project(tmp_path: Path, packed: Path) -> Path:
    return make_review(tmp_path / "project", packed)


@pytest.fixture
def evidence(project: Path) -> Evidence:
    return read_evidence(project)


def open_session(project: Path, evidence: Evidence, who: str = "ann") -> ReviewSession:
    path = project / "data/corrections.csv"
    return ReviewSession(path, evidence, rank_errors(evidence), "errors", who)


def test_answered_question_is_closed_in_every_session(project: Path, evidence: Evidence) -> None:
    session = open_session(project, evidence)
    first, second = session.queue[:2]
    given = session.state(first)
    session.answer(first, "unsure")
    open_session(project, evidence, "bob").answer(second, "yes")
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
    session.answer(first, "unsure")
    session.answer(second, "unsure")
    open_session(project, evidence, "bob").answer(third, "yes")
    written = (project / "data/corrections.csv").read_bytes()
    assert session.undo() == second
    assert session.undo() == first
    assert session.undo() is None
    after = session.reload()
    assert after.list_open() == [0, 1, *range(3, len(session.queue))]
    assert [after.state(question) for question in (first, second)] == given
    assert (project / "data/corrections.csv").read_bytes().startswith(written)
    assert [row[2:] for row in read_rows(project)[3:]] == [
        [state, "unsure", "ann", "undo"] for state in reversed(given)
    ]
    # A second answer can be undone too.
    after.answer(first, "unsure")
    assert after.undo() == first


def test_undo_skips_answers_about_photos_that_are_gone(project: Path, evidence: Evidence) -> None:
    session = open_session(project, evidence)
    session.answer(session.queue[0], "unsure")
    path = project / "data/corrections.csv"
    sha256 = evidence.photos.sha256[session.queue[0].photo]
    path.write_text(path.read_text().replace(sha256, "gone"))
    assert session.reload().undo() is None


def test_old_value_includes_answers_of_other_sessions(project: Path, evidence: Evidence) -> None:
    question = Question(0, 0)
    one, other = (open_session(project, evidence, who) for who in ("ann", "bob"))
    assert one.state(question) == other.state(question)
    one.answer(question, "unsure")
    other.answer(question, "yes")
    assert [row[3] for row in read_rows(project)][1] == "unsure"
