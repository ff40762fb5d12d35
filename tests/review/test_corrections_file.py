import subprocess
import sys
from dataclasses import astuple, replace
from pathlib import Path

import pandas as pd
import pytest

from phototag.base.errors import InputError
from phototag.review.corrections_file import append_answer
from phototag.verification.corrections import COLUMNS, Answer, read_answers

SHIPPED = Path(__file__).resolve().parents[2] / "data/corrections.csv"


def make(answer: str = "yes", **changes: str) -> Answer:
    first = Answer("images/im1.jpg", "a", "cat", answer, "no", "ann", "2025-01-01T10:00Z", "errors")
    return replace(first, **changes)


def test_appended_answers_are_read_by_any_csv_reader(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    answers = [make(), make("no", label='red, "dark"', who="Bé"), make("unsure", label="dog")]
    for answer in answers:
        append_answer(path, answer)
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


def test_file_with_other_separators_is_not_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    append_answer(path, make())
    path.write_bytes(path.read_text().replace(",", ";").encode("utf-16"))
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"save the file as UTF-8, with commas"):
        append_answer(path, make("no"))
    assert path.read_bytes() == before
