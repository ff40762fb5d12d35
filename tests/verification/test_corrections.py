import csv
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from phototag.base.errors import InputError
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.photos import Photo
from phototag.verification.corrections import (
    COLUMNS,
    Answer,
    drop_undone,
    latest_answers,
    read_answers,
)
from phototag.verification.edited_labels import EditedLabels
from phototag.verification.edited_targets import apply_edits
from phototag.verification.label_edits import LabelEdits
from phototag.verification.problems import Problem

PHOTOS = [
    Photo("kept", "", sha256="a"),
    Photo("kept", "grayscale", sha256="b"),
    Photo("rejected", "truncated", sha256="c"),
    Photo("kept", "", sha256="a"),
]


def make(answer: str = "yes", **changes: str) -> Answer:
    first = Answer("images/im1.jpg", "a", "cat", answer, "no", "ann", "2025-01-01T10:00Z", "errors")
    return replace(first, **changes)


def write(path: Path, *answers: Answer) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *map(astuple, answers)])
    return path


def columns(**values: list[int]) -> dict[str, np.ndarray]:
    return {label: np.array(column, np.int8) for label, column in values.items()}


def apply_answers(
    targets: dict[str, np.ndarray], answers: dict[int, Answer]
) -> tuple[list[Photo], list[Problem]]:
    """Apply answers in place, without edits of labels."""
    result = apply_edits(EditedLabels(LabelEdits(), list(targets)), targets, PHOTOS, answers)
    targets |= result.targets
    return result.photos, result.problems


def numbered(*answers: Answer) -> dict[int, Answer]:
    return dict(enumerate(answers, start=2))


def test_answers_are_sorted_by_time_and_the_last_one_wins(tmp_path: Path) -> None:
    # Git joins the rows of two people in any order; the second person has another time zone.
    path = write(
        tmp_path / "corrections.csv",
        make("no", when="2025-01-01T12:00:00+00:00"),
        make("no", when="2025-01-01T12:00:00+00:00"),
        make("yes", when="2025-01-01T13:30:00+02:00"),
        make("unsure", when="2025-01-01T11:59:00"),
    )
    answers = read_answers(path)
    assert list(answers) == [4, 5, 2, 3]
    assert [answer.answer for answer in answers.values()] == ["yes", "unsure", "no", "no"]
    assert latest_answers(answers.values())["a", "cat"].answer == "no"


def test_missing_file_has_no_answers(tmp_path: Path) -> None:
    assert read_answers(tmp_path / "none.csv") == {}


def test_file_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "corrections.csv", make())
    path.write_bytes(path.read_text().replace(",", ";").encode("utf-16"))
    assert list(read_answers(path).values()) == [make()]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("im1.jpg,a,cat,maybe,no,ann,2025-01-01,errors", r":3: column answer is 'maybe'"),
        ("im1.jpg,a,cat,yes,no,ann,yesterday,errors", r":3: column when is 'yesterday'"),
        ("im1.jpg,a,,yes,no,ann,2025-01-01,errors", r":3: expected the cells file,"),
        ("im1.jpg,a,cat,yes,no,ann,2025-01-01,errors,more", r":3: expected the cells"),
        ("im1.jpg,a", r":3: expected the cells"),
        ("<<<<<<< HEAD", r"\.csv holds merge conflict markers"),
        ('"im1.jpg,a', r":3: .*quotation mark"),
    ],
)
def test_invalid_row_is_refused_with_its_line(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path / "corrections.csv", make())
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(InputError, match=message):
        read_answers(path)


@pytest.mark.parametrize("text", ["photo,label\nim1.jpg,cat\n", ",".join(astuple(make())) + "\n"])
def test_other_or_missing_header_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "corrections.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"corrections\.csv:1: the first line must be file,sha256"):
        read_answers(path)


def test_last_answers_are_applied_to_all_files_with_the_same_content() -> None:
    targets = columns(cat=[0, 1, 0, 1], dog=[0, UNKNOWN, 0, 0])
    answers = numbered(
        make("no"),
        make("yes"),
        make("yes", sha256="b", label="dog"),
        make("unsure", sha256="b"),
        make("no", label="dog"),
    )
    photos, problems = apply_answers(targets, answers)
    assert problems == []
    assert targets["cat"].tolist() == [1, UNKNOWN, 0, 1]
    assert targets["dog"].tolist() == [0, 1, 0, 0]
    # An answer that equals the label files is not a change.
    corrected = "grayscale; corrected: cat unsure, dog yes"
    reasons = [photo.reason for photo in photos]
    assert reasons == ["corrected: cat yes", corrected, "truncated", ""]


@pytest.mark.parametrize("cat", [0, 1])
def test_undone_answer_does_not_override_the_label_file(cat: int) -> None:
    targets = columns(cat=[cat] * 4)
    # The value in the row that undoes an answer is the label at that time.
    answers = numbered(make(), make("no", sha256="b"), make("no", ranking="undo"))
    photos, problems = apply_answers(targets, answers)
    assert targets["cat"].tolist() == [cat, 0, cat, cat]
    assert [photo.reason for photo in photos][::3] == ["", ""]
    assert problems == []
    # A row that undoes nothing, such as one whose answer was deleted, has no effect.
    assert drop_undone([make("no", ranking="undo"), make(), make(who="bob", ranking="undo")]) == [
        make()
    ]


def test_answer_without_a_photo_or_label_is_noted_and_changes_nothing() -> None:
    targets = columns(cat=[0, 1, 0, 0])
    answers = numbered(make(label="owl"), make(sha256="old"), make(sha256="c", file="im3.jpg"))
    photos, problems = apply_answers(targets, answers)
    assert (photos, targets["cat"].tolist()) == (PHOTOS, [0, 1, 0, 0])
    assert [(problem.place, problem.text, problem.action) for problem in problems] == [
        (f"data/corrections.csv:{line}", f"answer not applied: {what}", "noted")
        for line, what in (
            (2, "images/im1.jpg, owl yes: the label is not learned"),
            (3, "images/im1.jpg, cat yes: no photo has this content"),
            (4, "im3.jpg, cat yes: no photo has this content"),
        )
    ]
