"""What is wrong with the files of a data set, and when it is too much."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from phototag.base.errors import InputError

SHOWN = 20  # problems in the table that stops the pipeline


@dataclass(frozen=True)
class Problem:
    """One thing that the user should know about a file.

    Attributes:
        file: Its path in the data set.
        line: From 1; 0 for the file as a whole.
        kind: What it is, in the same words each time.
        detail: What exactly, in words; may be empty.
        action: rejected (a photo or a line was left out) | noted (nothing was lost).
    """

    file: str
    line: int
    kind: str
    detail: str
    action: Literal["rejected", "noted"]

    @property
    def place(self) -> str:
        """The file, with the line where there is one."""
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def text(self) -> str:
        """The kind and the detail."""
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


def check_problems(
    problems: Sequence[Problem], num_photos: int, num_lines: int, on_problem: str, share: float
) -> None:
    """Stop where more was left out than the user allows.

    Args:
        problems: Of photos (line 0) and of label files.
        num_photos: All files among the photos.
        num_lines: All lines of the label files.
        on_problem: reject (up to a share) | fail (at the first rejection).
        share: The largest share of the photos, and of the lines, that may be left out, 0..1.

    Raises:
        InputError: With a table of what was left out, and where.
    """
    rejected = [problem for problem in problems if problem.action == "rejected"]
    lines = [problem for problem in rejected if problem.line]
    photos = [problem for problem in rejected if not problem.line]
    over = []
    if on_problem == "fail" and rejected:
        over.append("resize.on_problem is fail")
    for what, some, count in (("photos", photos, num_photos), ("label lines", lines, num_lines)):
        if len(some) > share * count:
            over.append(f"{len(some)} of {count} {what} is over resize.max_rejected, {share:g}")
    if not over:
        return
    shown = rejected[:SHOWN]
    width = max(len(problem.place) for problem in shown)
    table = [f"  {problem.place:<{width}}  {problem.text}" for problem in shown]
    if len(rejected) > SHOWN:
        table.append(f"  ... and {len(rejected) - SHOWN} more")
    raise InputError(
        f"{len(rejected)} rejected ({'; '.join(over)}):\n"
        + "\n".join(table)
        + "\nMend these files, or allow more in params.yaml; all of them stand in "
        "reports/resize/problems.csv"
    )
