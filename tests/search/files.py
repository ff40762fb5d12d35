"""What tests of searches share: a small search.yaml, and a project without DVC."""

import copy
from pathlib import Path
from typing import Any

import yaml

from phototag.search.studies import Search, Study, read_search

SMALL: dict[str, Any] = {
    "says": "A small one.",
    "trials": 4,
    "space": {"lr": {"low": 0.0001, "high": 0.01, "log": True}},
}


def write_search(path: Path, **changes: Any) -> Path:
    """Write a search.yaml of one study, `small`; None takes a key away."""
    study = {k: v for k, v in (copy.deepcopy(SMALL) | changes).items() if v is not None}
    path.write_text(yaml.safe_dump({"studies": {"small": study}}, sort_keys=False))
    return path


def make_study(**changes: Any) -> Study:
    """Return such a study."""
    return Search.model_validate({"studies": {"small": SMALL | changes}}).studies["small"]


def read_small(path: Path) -> Study:
    return read_search(path).studies["small"]
