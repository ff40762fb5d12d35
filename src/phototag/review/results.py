"""Results of the last finished `dvc repro`, shared by all browser tabs of a review page."""

import hashlib
from pathlib import Path
from threading import Lock

from phototag.apps.results import LOCK, list_hashes, read_lock
from phototag.base.errors import InputError
from phototag.review.evidence import INPUTS, MANIFEST, SPLITS, Evidence, read_evidence
from phototag.review.rankings import RANKINGS, Question
from phototag.verification.label_edits import EDITS

INCOMPLETE = (
    "`dvc repro` is running or was stopped. Until it has finished, this page shows the results of "
    "the last `dvc repro`. Your answers are stored as usual."
)
EDITED = (
    f"{EDITS} has changed since the last `dvc repro`, so this page asks about the labels before "
    "these changes. Your answers count for the labels after them."
)


class Results:
    """The evidence of a project and the questions of a ranking.

    Attributes:
        root: Root folder of the project.
        ranking: Name of the ranking.
        evidence: Evidence that was read last.
        queue: Questions of the ranking.
    """

    def __init__(self, root: Path, ranking: str) -> None:
        self.root, self.ranking, self._lock = root, ranking, Lock()
        self._read(self._list_times())

    def refresh(self) -> str:
        """Read the files again if they have changed, and return a note for the reviewer.

        While `dvc repro` runs, files are missing or belong to different runs. The results that were
        read before are then kept, and so are labels that were edited since `dvc repro`.
        """
        with self._lock:
            times = self._list_times()
            if times != self._times:
                try:
                    if not _is_finished(self.root):
                        return INCOMPLETE
                    self._read(times)
                except (InputError, OSError, ValueError, RuntimeError):
                    return INCOMPLETE
        edits = self.root / EDITS
        text = edits.read_bytes() if edits.is_file() else b""
        return EDITED if self._edits not in ("", hashlib.md5(text).hexdigest()) else ""

    def _read(self, times: list[int]) -> None:
        evidence = read_evidence(self.root)
        self.queue: list[Question] = RANKINGS[self.ranking](evidence)
        self.evidence: Evidence = evidence
        self._times = times
        # Hash of the edits that `resize` has applied.
        self._edits = list_hashes(read_lock(self.root)["resize"], "deps").get(str(EDITS), "")

    def _list_times(self) -> list[int]:
        """Return the modification time of each file; 0 if it is missing."""
        paths = [self.root / name for name in (*INPUTS, LOCK)]
        return [path.stat().st_mtime_ns if path.exists() else 0 for path in paths]


def _is_finished(root: Path) -> bool:
    """Return whether dvc.lock lists the present files as those that `evaluate` has read.

    Between two stages of `dvc repro`, all files exist, but some are older than their inputs.
    """
    stages = read_lock(root)
    used = list_hashes(stages["evaluate"], "deps")
    written = dict(item for stage in stages.values() for item in list_hashes(stage, "outs").items())
    if any(used[path] != written.get(path, used[path]) for path in used):
        return False
    # A stage writes its outputs before DVC writes dvc.lock. The large files are not hashed.
    return all(
        hashlib.md5((root / path).read_bytes()).hexdigest() == used.get(path)
        for path in (MANIFEST, SPLITS)
        if path in used
    )
