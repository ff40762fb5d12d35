"""Problems of a dataset's files, and the limits above which they stop the pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from phototag.base.errors import InputError

SHOWN = 20  # maximum number of problems in the error message


@dataclass(frozen=True)
class Problem:
    """A problem of a photo or a label file.

    Attributes:
        file: Path of the file in the dataset.
        line: Line number from 1, or 0 if the problem concerns the whole file.
        kind: Kind of problem, the same words for all problems of the kind.
        detail: Value that was found; may be empty.
        action: rejected (the photo or line is not used) | noted (everything is used).
    """

    file: str
    line: int
    kind: str
    detail: str
    action: Literal["rejected", "noted"]

    @property
    def place(self) -> str:
        """File, with the line number if there is one."""
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def text(self) -> str:
        """Kind and detail."""
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


def check_problems(
    problems: Sequence[Problem], num_photos: int, num_lines: int, on_problem: str, share: float
) -> None:
    """Check that no more photos and label lines were rejected than the user allows.

    Args:
        problems: Problems of photos (line 0) and label files.
        num_photos: Number of photo files.
        num_lines: Number of lines in all label files.
        on_problem: reject (accept rejections up to `share`) | fail (accept none).
        share: Maximum share of rejected photos, and of rejected label lines, 0..1.

    Raises:
        InputError: Too many were rejected; the message lists them.
    """
    rejected = [problem for problem in problems if problem.action == "rejected"]
    lines = [problem for problem in rejected if problem.line]
    reasons = ["resize.on_problem is fail"] if on_problem == "fail" and rejected else []
    for what, number, total in (
        ("photos", len(rejected) - len(lines), num_photos),
        ("label lines", len(lines), num_lines),
    ):
        if number > share * total:
            reasons.append(f"{number} of {total} {what} exceed resize.max_rejected {share:g}")
    if not reasons:
        return
    table = [f"  {problem.place}  {problem.text}" for problem in rejected[:SHOWN]]
    if len(rejected) > SHOWN:
        table.append(f"  ... and {len(rejected) - SHOWN} more")
    raise InputError(
        f"{len(rejected)} rejected ({'; '.join(reasons)}):\n"
        + "\n".join(table)
        + "\nfix these files (reports/resize/problems.csv lists all), or raise resize.max_rejected "
        "and set resize.on_problem to reject"
    )
