"""Helpers of the tests of search: a small search.yaml."""

import copy
from pathlib import Path
from typing import Any

import yaml

from phototag.search.studies import Search, Study

SMALL: dict[str, Any] = {
    "description": "A small study.",
    "trials": 4,
    "space": {"lr": {"low": 0.0001, "high": 0.01, "log": True}},
}


def write_search(path: Path, **changes: Any) -> Path:
    """Write a search.yaml with one study, `small`; a change to None removes the key."""
    study = {k: v for k, v in (copy.deepcopy(SMALL) | changes).items() if v is not None}
    path.write_text(yaml.safe_dump({"studies": {"small": study}}, sort_keys=False))
    return path


def make_study(**changes: Any) -> Study:
    """Return the study `small`."""
    return Search.model_validate({"studies": {"small": SMALL | changes}}).studies["small"]
