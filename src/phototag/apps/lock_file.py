"""The file dvc.lock, which records the inputs of the last results."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phototag.base.params import parse_values, read_values

LOCK, CORRECTIONS = "dvc.lock", "data/corrections.csv"


def parse_stages(text: str, source: str | Path) -> dict[str, Any]:
    """Return the stages in the text of dvc.lock, by name; error messages start with `source`."""
    stages: dict[str, Any] = parse_values(text, source).get("stages", {})
    return stages


def list_inputs(stages: Mapping[str, Any]) -> dict[str, Any]:
    """Return path -> hash of files that no stage writes, and key -> value of params.

    The inputs of the stage `register` are omitted, because scores do not depend on them.
    """
    written = {out["path"] for stage in stages.values() for out in stage.get("outs", ())}
    inputs: dict[str, Any] = {}
    for name, stage in stages.items():
        if name != "register":
            inputs |= {dep["path"]: dep.get("md5") for dep in stage.get("deps", ())}
            inputs |= stage.get("params", {}).get("params.yaml", {})
    return {name: value for name, value in inputs.items() if name not in written}


def list_changed_data(root: Path) -> list[str]:
    """Return the paths of photos and corrections that differ from those of the last `dvc repro`.

    A folder is compared by the number and the size of its files, because hashing takes long. A
    folder or file that is missing is not listed.

    Raises:
        InputError: dvc.lock or params.yaml is missing or invalid.
    """
    resize = read_values(root / LOCK).get("stages", {}).get("resize", {})
    recorded = {os.path.normpath(dep["path"]): dep for dep in resize.get("deps", ())}
    raw = os.path.normpath(read_values(root / "params.yaml")["data"]["raw"])
    return [name for name in (raw, CORRECTIONS) if _is_changed(root / name, recorded.get(name, {}))]


def _is_changed(path: Path, recorded: Mapping[str, Any]) -> bool:
    if path.is_dir():
        sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
        return (len(sizes), sum(sizes)) != (recorded.get("nfiles"), recorded.get("size"))
    if not path.is_file():
        return False
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest() != recorded.get("md5")
