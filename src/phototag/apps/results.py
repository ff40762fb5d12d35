"""Results of the last `dvc repro`: its inputs, recorded in dvc.lock, and its scores."""

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

from pydantic import Field

from phototag.base.errors import InputError
from phototag.base.files import parse_json, read_source
from phototag.base.params import ParamGroup, parse_values, read_params, validate_params
from phototag.verification.params import VerificationParams

LOCK, CORRECTIONS = "dvc.lock", "data/corrections.csv"
METRICS = "reports/evaluate/metrics.json"


class LockedFile(ParamGroup, extra="ignore"):
    """File or folder that a stage read or wrote; `nfiles` is None for a file."""

    path: str
    md5: str = ""
    size: int | None = None
    nfiles: int | None = None


class LockedStage(ParamGroup, extra="ignore"):
    """Files that a stage read and wrote when it last ran, and params (params file -> values)."""

    deps: list[LockedFile] = Field(default_factory=list)
    outs: list[LockedFile] = Field(default_factory=list)
    params: dict[str, dict[str, Any]] = Field(default_factory=dict)


Stages = defaultdict[str, LockedStage]  # a stage that never ran has no files and no params


class Lock(ParamGroup, extra="ignore"):
    """The contents of dvc.lock."""

    stages: dict[str, LockedStage] = Field(default_factory=dict)


def parse_lock(text: str | None, source: str | Path = LOCK) -> Stages:
    """Parse dvc.lock and return its stages by name; None stands for a missing file.

    Raises:
        InputError: The text has conflict markers or is not a valid dvc.lock.
    """
    lock = validate_params(Lock, parse_values(text or "{}", source), str(source))
    return defaultdict(LockedStage, lock.stages)


def read_lock(root: Path) -> Stages:
    """Return the stages in the dvc.lock of a project; see `parse_lock`."""
    path = root / LOCK
    return parse_lock(read_source(path) if path.is_file() else None, path)


def parse_scores(text: str, source: str | Path) -> dict[str, float]:
    """Parse metrics.json; raise an InputError if a value is not a number."""
    scores = parse_json(text, source)
    if not isinstance(scores, dict) or not all(isinstance(x, int | float) for x in scores.values()):
        raise InputError(f"{source} should contain only numbers: run `dvc repro`")
    return scores


def read_scores(root: Path) -> dict[str, float]:
    """Return the scores in the metrics.json of a project; see `parse_scores`."""
    path = root / METRICS
    if not path.is_file():
        raise InputError(f"{path} is missing: run `dvc repro` first")
    return parse_scores(read_source(path), path)


def list_changed_data(root: Path) -> list[str]:
    """Return the paths of photos and answers that differ from those of the last `dvc repro`.

    A folder is compared by the number and the size of its files, because hashing takes long.
    """
    recorded = {file.path: file for file in read_lock(root)["resize"].deps}
    raw = str(Path(read_params(VerificationParams, root / "params.yaml").data.raw))
    return [name for name in (raw, CORRECTIONS) if _is_changed(root / name, recorded.get(name))]


def _is_changed(path: Path, recorded: LockedFile | None) -> bool:
    if not path.exists():  # for example, the photos were not pulled
        return False
    if recorded is None:
        return True
    if path.is_dir():
        sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
        return (len(sizes), sum(sizes)) != (recorded.nfiles, recorded.size)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() != recorded.md5
