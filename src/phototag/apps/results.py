"""Results of the last `dvc repro`: its inputs, recorded in dvc.lock, and its scores."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from phototag.base.errors import InputError
from phototag.base.files import parse_json, read_source
from phototag.base.params import parse_values

LOCK, CORRECTIONS = "dvc.lock", "data/corrections.csv"
METRICS = "reports/evaluate/metrics.json"
FILES = {  # files of the model that the stage `register` reads
    "images": "data/images.npy",
    "features": "data/features.npy",
    "manifest": "data/manifest.csv",
    "splits": "data/splits.csv",
    "history": "reports/train/history.csv",
    "model": "models/model.safetensors",
    "reference": "models/reference.safetensors",
    "thresholds": "reports/evaluate/thresholds.json",
    "metrics": METRICS,
    "scores": "reports/evaluate/scores.csv",
    "per_label": "reports/evaluate/per_label.csv",
    "slices": "reports/evaluate/slices.csv",
    "predictions": "reports/evaluate/predictions.csv",
    "summary": "reports/resize/summary.json",
}


Stages = defaultdict[str, dict[str, Any]]  # a stage that never ran is an empty dictionary


def parse_lock(text: str | None, source: str | Path = LOCK) -> Stages:
    """Parse dvc.lock and return its stages by name; None stands for a missing file."""
    stages = parse_values(text or "{}", source).get("stages", {})
    if not isinstance(stages, dict) or not all(isinstance(x, dict) for x in stages.values()):
        raise InputError(f"{source} is damaged: restore it with git, or run `dvc repro`")
    return defaultdict(dict, stages)


def read_lock(root: Path) -> Stages:
    """Return the stages in the dvc.lock of a project; see `parse_lock`."""
    path = root / LOCK
    return parse_lock(read_source(path) if path.is_file() else None, path)


def list_hashes(stage: Mapping[str, Any], kind: Literal["deps", "outs"]) -> dict[str, str]:
    """Return path -> MD5 hash of the files and folders that a stage read or wrote."""
    files = stage.get(kind)
    entries = [one for one in files if isinstance(one, dict)] if isinstance(files, list) else []
    return {str(file.get("path")): str(file.get("md5", "")) for file in entries}


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
