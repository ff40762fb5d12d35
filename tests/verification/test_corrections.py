import subprocess
import sys
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phototag.base.errors import InputError
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.photos import Photo
from phototag.review.corrections_file import append_answer
from phototag.verification.corrections import (
    COLUMNS,
    Answer,
    apply_answers,
    latest_answers,
    read_answers,
    remark_changes,
)

HEADER = ",".join(COLUMNS) + "\n"
NAMES = ["images/im1.jpg", "images/im2.jpg", "images/im3.jpg", "images/im4.jpg"]
PHOTOS = [
    Photo("kept", "", sha256="a"),
    Photo("kept", "grayscale", sha256="b"),
    Photo("rejected", "truncated", sha256="c"),
    Photo("kept", "", sha256="a"),
]
SHIPPED = Path(__file__).resolve().parents[2] / "data/corrections.csv"


def make(answer: str = "yes", **changes: str) -> Answer:
    first = Answer("images/im1.jpg", "a", "cat", answer, "no", "ann", "2025-01-01T10:00Z", "errors")
    return replace(first, **changes)


def columns(**values: list[int]) -> dict[str, np.ndarray]:
    return {label: np.array(column, np.int8) for label, column in values.items()}


def numbered(*answers: Answer) -> dict[int, Answer]:
    return dict(enumerate(answers, start=2))


def test_what_is_appended_is_read_and_any_csv_reader_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    answers = [make(), make("no", label='red, "dark"', who="Bé"), make("unsure", label="dog")]
    for answer in answers:
        append_answer(path, answer)
    assert list(read_answers(path).values()) == answers
    table = pd.read_csv(path, dtype=str)
    assert table.to_numpy().tolist() == [list(astuple(answer)) for answer in answers]


def test_the_shipped_file_takes_answers_and_holds_none(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    path.write_bytes(SHIPPED.read_bytes())
    assert path.read_text() == HEADER
    assert read_answers(path) == read_answers(tmp_path / "none.csv") == {}
    append_answer(path, make())
    assert read_answers(path) == {2: make()}


def test_a_last_line_without_an_end_gets_one(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    append_answer(path, make())
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    append_answer(path, make("no"))
    assert list(read_answers(path).values()) == [make(), make("no")]


def test_two_processes_that_append_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    code = (
        "import sys; from pathlib import Path\n"
        "from phototag.review.corrections_file import append_answer\n"
        "from phototag.verification.corrections import Answer\n"
        "for number in range(100):\n"
        "    row = Answer('x' * 3000, str(number), 'cat', 'yes', 'no', sys.argv[2], '2025-01-01', "
        "'next')\n"
        "    append_answer(Path(sys.argv[1]), row)\n"
    )
    pages = [subprocess.Popen([sys.executable, "-c", code, str(path), who]) for who in "ab"]
    assert [page.wait(120) for page in pages] == [0, 0]
    answers = list(read_answers(path).values())
    for who in "ab":
        assert [a.sha256 for a in answers if a.who == who] == [str(n) for n in range(100)]


def test_the_order_is_that_of_time_and_the_last_answer_wins(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    # As git joins two people's rows; the second is the later one, in another time zone.
    for answer in (
        make("no", when="2025-01-01T12:00:00+00:00"),
        make("yes", when="2025-01-01T13:30:00+02:00"),
        make("unsure", when="2025-01-01T11:59:00"),
    ):
        append_answer(path, answer)
    assert [answer.answer for answer in read_answers(path).values()] == ["yes", "unsure", "no"]
    assert latest_answers(read_answers(path).values())["a", "cat"].answer == "no"


def test_a_spreadsheets_file_is_read_and_not_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    append_answer(path, make())
    path.write_bytes(path.read_text().replace(",", ";").replace("\n", "\r\n").encode("utf-16"))
    before = path.read_bytes()
    assert list(read_answers(path).values()) == [make()]
    with pytest.raises(InputError, match=r"save the file as UTF-8, with commas"):
        append_answer(path, make("no"))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("im1.jpg,a,cat,maybe,no,ann,2025-01-01,errors", r":3: the answer is 'maybe'"),
        ("im1.jpg,a,cat,yes,no,ann,yesterday,errors", r":3: when is 'yesterday'"),
        ("im1.jpg,a,,yes,no,ann,2025-01-01,errors", r":3: no answer: a row is file,"),
        ("im1.jpg,a,cat,yes,no,ann,2025-01-01,errors,more", r":3: no answer"),
        ("<<<<<<< HEAD", r":3: no answer"),
        ('"im1.jpg,a', r":3: .*quotation mark"),
    ],
)
def test_a_spoilt_row_is_told_by_its_line(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "corrections.csv"
    append_answer(path, make())
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(InputError, match=message):
        read_answers(path)


def test_another_header_is_told(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    path.write_text("photo,label\nim1.jpg,cat\n")
    with pytest.raises(InputError, match=r"corrections\.csv:1: .*columns file,sha256,label"):
        read_answers(path)


def test_the_last_answers_are_applied_to_all_files_of_the_same_bytes() -> None:
    targets = columns(cat=[0, 1, 0, 1], dog=[0, UNKNOWN, 0, 0])
    answers = numbered(
        make("no"),
        make("yes"),
        make("yes", sha256="b", label="dog"),
        make("unsure", sha256="b"),
        make("no", label="dog"),
    )
    changes, problems = apply_answers(targets, NAMES, PHOTOS, answers, "c.csv")
    assert problems == []
    assert targets["cat"].tolist() == [1, UNKNOWN, 0, 1]
    assert targets["dog"].tolist() == [0, 1, 0, 0]
    # What the label files say already is no change.
    told = [(change.photo, change.label, change.answer) for change in changes]
    assert told == [(0, "cat", "yes"), (1, "dog", "yes"), (1, "cat", "unsure")]
    reasons = [photo.reason for photo in remark_changes(PHOTOS, changes)]
    corrected = "grayscale; corrected: dog yes, cat unsure"
    assert reasons == ["corrected: cat yes", corrected, "truncated", ""]


def test_an_answer_that_finds_no_place_is_told_and_changes_nothing() -> None:
    targets = columns(cat=[0, 1, 0, 0])
    answers = numbered(
        make(label="owl"),
        make(sha256="old"),
        make(sha256="c", file="images/im3.jpg"),
        make(sha256="other", file="images/im9.jpg"),
    )
    changes, problems = apply_answers(targets, NAMES, PHOTOS, answers, "c.csv")
    assert (changes, targets["cat"].tolist()) == ([], [0, 1, 0, 0])
    assert [(problem.place, problem.text, problem.action) for problem in problems] == [
        (f"c.csv:{line}", f"a correction of a {what}", "noted")
        for line, what in (
            (2, "label that is not learned: images/im1.jpg, owl yes"),
            (3, "photo that has changed: images/im1.jpg, cat yes"),
            (4, "photo that is rejected: images/im3.jpg, cat yes"),
            (5, "photo that is gone: images/im9.jpg, cat yes"),
        )
    ]


def test_a_label_must_stay_known_somewhere() -> None:
    targets = columns(cat=[1, UNKNOWN, 0, 1], dog=[0, 0, 0, 0])
    with pytest.raises(InputError, match=r"c\.csv leaves 'cat' known for no photo"):
        apply_answers(targets, NAMES, PHOTOS, numbered(make("unsure")), "c.csv")
