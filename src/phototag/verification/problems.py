"""Problems with a dataset's files, and the limits above which they stop the pipeline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from phototag.base.errors import InputError
from phototag.decoding.photos import DECODER_MISSING

SHOWN = 20  # maximum number of problems that the error message lists


@dataclass(frozen=True)
class Problem:
    """A problem with a photo, a label file or a row of the corrections file.

    Attributes:
        file: Path of the file in the dataset.
        line: Line number, counted from 1; 0 if the problem concerns the whole file.
        kind: Kind of the problem, such as `no such image`.
        detail: Value or reason that was found; may be empty.
        action: rejected (the photo or line is not used) | noted (for information only).
    """

    file: str
    line: int
    kind: str
    detail: str
    action: Literal["rejected", "noted"]

    @property
    def place(self) -> str:
        """Path of the file, with the line number if there is one."""
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def text(self) -> str:
        """Kind of the problem, followed by its detail if there is one."""
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


def describe_rejected(problems: Sequence[Problem], num_photos: int) -> list[str]:
    """Return a list with one line of counts, or an empty list if nothing was rejected."""
    rejected = [problem for problem in problems if problem.action == "rejected"]
    if not rejected:
        return []
    lines = sum(problem.line > 0 for problem in rejected)
    photos = len(rejected) - lines
    counts = f"photos kept: {num_photos - photos}, rejected: {photos}"
    return [
        f"{counts}; label lines rejected: {lines}; reports/resize/report.html states the reasons"
    ]


def check_problems(
    problems: Sequence[Problem], num_photos: int, num_lines: int, on_problem: str, share: float
) -> None:
    """Check that no decoder is missing and that the shares of rejections are within the limits.

    A missing decoder is an error, because DVC does not rerun the stage when a decoder is installed.

    `on_problem` is reject (accept rejections up to a `share` of the photos and of the label lines)
    or fail (accept no rejections).

    Raises:
        InputError: A decoder is missing, or too many photos or label lines were rejected.
    """
    rejected = [problem for problem in problems if problem.action == "rejected"]
    if missing := [problem for problem in rejected if problem.kind == DECODER_MISSING]:
        raise InputError(
            f"photos that this machine cannot decode: {len(missing)}, such as {missing[0].file}: "
            f"{missing[0].detail}, or remove these photos"
        )
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
        f"rejected photos and label lines: {len(rejected)} ({'; '.join(reasons)}):",
        *table,
        "fix these files (reports/resize/problems.csv lists all), or raise resize.max_rejected "
        "and set resize.on_problem to reject",
    )
