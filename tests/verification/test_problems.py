import pytest

from phototag.base.errors import InputError
from phototag.verification.problems import SHOWN, Problem, check_problems, describe_rejected

PHOTO = Problem("images/im7.jpg", 0, "truncated", "", "rejected")
LINE = Problem("annotations/cat.txt", 3, "no such image", "im9", "rejected")
NOTE = Problem("annotations/notes.md", 0, "not a label file", "ignored", "noted")


def test_noted_problems_are_accepted() -> None:
    check_problems([NOTE] * 50, 1, 1, "fail", 0)
    assert describe_rejected([NOTE] * 50, 1) == []


def test_rejections_are_counted_in_one_line() -> None:
    (line,) = describe_rejected([PHOTO, LINE, LINE, NOTE], 7)
    assert line.startswith("photos kept: 6, rejected: 1; label lines rejected: 2; reports/resize/")


def test_first_rejection_stops_if_on_problem_is_fail() -> None:
    check_problems([PHOTO, LINE], 100, 100, "reject", 0.01)
    with pytest.raises(InputError, match=r"label lines: 1 \(resize\.on_problem is fail\)"):
        check_problems([LINE], 100, 100, "fail", 1)


@pytest.mark.parametrize(("problem", "what"), [(PHOTO, "photos"), (LINE, "label lines")])
def test_too_many_rejections_stop_with_a_table(problem: Problem, what: str) -> None:
    check_problems([problem], 100, 100, "reject", 0.01)
    with pytest.raises(InputError, match=f"2 of 199 {what} exceed resize.max_rejected") as caught:
        check_problems([problem, problem], 199, 199, "reject", 0.01)
    assert f"  {problem.place}  {problem.text}\n" in str(caught.value)


def test_long_table_is_cut() -> None:
    with pytest.raises(InputError) as caught:
        check_problems([PHOTO] * 300, 300, 1, "reject", 0.5)
    assert str(caught.value).count("truncated") == SHOWN
    assert f"and {300 - SHOWN} more" in str(caught.value)
