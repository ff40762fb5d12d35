"""Results of the last finished `dvc repro`, shared by all browser tabs of a review page."""

from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from phototag.base.errors import InputError
from phototag.review.evidence import INPUTS, Evidence, read_evidence
from phototag.review.rankings import RANKINGS, Question

INCOMPLETE = (
    "`dvc repro` is running or was stopped. Until it has finished, this page shows the results of "
    "the last `dvc repro`. Your answers are stored as usual."
)


@dataclass
class Results:
    """The evidence of a project and the questions of a ranking.

    Attributes:
        root: Root folder of the project.
        ranking: Name of the ranking.
        current: Evidence and questions; None until `refresh` is called.
        times: Modification times of the files when they were read.
        lock: Lock that a tab holds while it reads the files.
    """

    root: Path
    ranking: str
    current: tuple[Evidence, list[Question]] | None = None
    times: tuple[int, ...] = ()
    lock: Any = field(default_factory=Lock)

    def refresh(self) -> str:
        """Read the files again if they have changed, and return a note for the reviewer.

        While `dvc repro` runs, files are missing or belong to different runs. The results that were
        read before are then kept.
        """
        paths = [self.root / name for name in INPUTS]
        with self.lock:
            times = tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in paths)
            if times == self.times:
                return ""
            try:
                evidence = read_evidence(self.root)
            except (InputError, OSError, ValueError, RuntimeError):
                if self.current is None:
                    raise
                return INCOMPLETE
            self.current, self.times = (evidence, RANKINGS[self.ranking](evidence)), times
            return ""
