from pathlib import Path

import pytest

from phototag.review.answers import Sheet
from phototag.review.evidence import Evidence, read_evidence
from phototag.review.rankings import Question, rank_errors
from tests.reviews import make_review, read_rows


@pytest.fixture
def project(tmp_path: Path, packed: Path) -> Path:
    return make_review(tmp_path / "project", packed)


@pytest.fixture
def evidence(project: Path) -> Evidence:
    return read_evidence(project)


def open_sheet(project: Path, evidence: Evidence, who: str = "ann") -> Sheet:
    path = project / "data/corrections.csv"
    return Sheet(path, evidence, rank_errors(evidence), "errors", who)


def test_an_answered_question_is_no_longer_open_on_any_page(
    project: Path, evidence: Evidence
) -> None:
    sheet = open_sheet(project, evidence)
    first, second = sheet.questions[:2]
    given = sheet.state(first)
    sheet.answer(first, "unsure")
    open_sheet(project, evidence, "bob").answer(second, "yes")
    after = open_sheet(project, evidence)
    assert after.list_open() == list(range(2, len(sheet.questions)))
    assert (after.state(first), after.state(second)) == ("unsure", "yes")
    file, label = evidence.photos.files[first.photo], evidence.photos.labels[first.label]
    assert read_rows(project)[0] == [file, label, "unsure", given, "ann", "errors"]
    assert read_rows(project)[1][4] == "bob"


def test_undo_takes_ones_own_answers_back_one_by_one_and_rewrites_nothing(
    project: Path, evidence: Evidence
) -> None:
    sheet = open_sheet(project, evidence)
    first, second, third = sheet.questions[:3]
    given = [sheet.state(question) for question in (first, second)]
    sheet.answer(first, "unsure")
    sheet.answer(second, "unsure")
    open_sheet(project, evidence, "bob").answer(third, "yes")
    written = (project / "data/corrections.csv").read_bytes()
    assert sheet.undo() == second
    assert sheet.undo() == first
    assert sheet.undo() is None
    after = open_sheet(project, evidence)
    assert after.list_open() == [0, 1, *range(3, len(sheet.questions))]
    assert [after.state(question) for question in (first, second)] == given
    assert (project / "data/corrections.csv").read_bytes().startswith(written)
    assert [row[2:] for row in read_rows(project)[3:]] == [
        [state, "unsure", "ann", "undo"] for state in reversed(given)
    ]
    # What is answered anew can be taken back anew.
    after.answer(first, "unsure")
    assert after.undo() == first


def test_an_answer_about_another_photo_cannot_be_taken_back_here(
    project: Path, evidence: Evidence
) -> None:
    sheet = open_sheet(project, evidence)
    sheet.answer(sheet.questions[0], "unsure")
    path = project / "data/corrections.csv"
    sha256 = evidence.photos.sha256[sheet.questions[0].photo]
    path.write_text(path.read_text().replace(sha256, "gone"))
    assert open_sheet(project, evidence).undo() is None


def test_a_later_page_says_what_stands_there_now(project: Path, evidence: Evidence) -> None:
    question = Question(0, 0)
    one, other = (open_sheet(project, evidence, who) for who in ("ann", "bob"))
    assert one.state(question) == other.state(question)
    one.answer(question, "unsure")
    other.answer(question, "yes")  # it was drawn before
    assert [row[3] for row in read_rows(project)][1] == "unsure"
