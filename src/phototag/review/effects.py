"""Changes in labels and scores after training with the answers of a review."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phototag.apps.summary import CORRECTIONS, LOCK, list_changed_data
from phototag.base.errors import InputError
from phototag.base.files import parse_json, read_json
from phototag.base.git import ask_git, run_git
from phototag.base.params import parse_values, read_values
from phototag.metrics.selection import VAL_PREFIX
from phototag.verification.corrections import ANSWERS, latest_answers, parse_answers, read_answers

MANIFEST = "data/manifest.csv"
METRICS = "reports/evaluate/metrics.json"
SCORES = {"f1_micro": "micro F1", "f1_macro": "macro F1", "mAP": "mAP"}


def describe_effect(root: Path, revision: str) -> str:
    """Describe the changes in labels and scores since a git revision.

    Args:
        root: Root folder of a project in which `dvc repro` has run.
        revision: Git revision that contains the earlier answers and scores.

    Raises:
        InputError: The revision does not contain the results of an evaluation, or `dvc repro` has
            not run since the last change of answers or photos.
    """
    run_git(root, "rev-parse", "--git-dir")  # raises an error outside git
    if not (root / METRICS).is_file():
        raise InputError(f"{METRICS} is missing: run `dvc repro`")
    before, old_lock, committed = (
        ask_git(root, "show", "--end-of-options", f"{revision}:./{name}")
        for name in (METRICS, LOCK, CORRECTIONS)
    )
    if not before or not old_lock:
        raise InputError(f"{revision} is not a commit with {METRICS} and {LOCK}: pass another")
    stages = read_values(root / LOCK).get("stages", {})
    files = [*stages.get("resize", {}).get("outs", ()), *stages.get("evaluate", {}).get("deps", ())]
    manifests = {file.get("md5") for file in files if file["path"] == MANIFEST}
    if list_changed_data(root) or len(manifests) > 1:
        raise InputError("the model was not trained with the latest labels: run `dvc repro`")

    old_rows = parse_answers((committed or "").encode(), f"{revision}:{CORRECTIONS}")
    old = latest_answers(old_rows.values())
    rows = list(read_answers(root / CORRECTIONS).values())
    new = latest_answers(rows)
    first = {answer.entry: answer.old for answer in reversed(rows)}
    changed = Counter(
        now
        for entry, label in first.items()
        if (now := new[entry].answer if entry in new else label)
        != (old[entry].answer if entry in old else label)
    )
    shown = ", ".join(f"{changed[kind]} to {kind}" for kind in ANSWERS)
    scores, old_scores = read_json(root / METRICS), parse_json(before, f"{revision}:{METRICS}")
    differences = ", ".join(
        f"{name} {old_scores[key]:.3f} -> {scores[key]:.3f} ({scores[key] - old_scores[key]:+.3f})"
        for prefix in ("", VAL_PREFIX)
        for key, name in ((f"{prefix}{key}", name) for key, name in SCORES.items())
        if key in old_scores and key in scores
    )
    number = f"Labels changed since {revision}: {changed.total()} ({shown})."
    text = f"{number} Scores: {differences or 'on another split than before, so not comparable'}."
    inputs = _list_inputs(stages) ^ _list_inputs(parse_values(old_lock, LOCK).get("stages", {}))
    others = sorted({name for name, _ in inputs} - {CORRECTIONS})
    if others:
        text += f" These inputs changed too and may explain the difference: {', '.join(others)}."
    return text


def _list_inputs(stages: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Return the dependencies of `resize` with their hashes, and all params with their values."""
    deps = stages.get("resize", {}).get("deps", ())
    inputs = {(dep["path"], str(dep.get("md5"))) for dep in deps}
    for stage in stages.values():
        used = stage.get("params", {}).get("params.yaml", {})
        inputs |= {(key, repr(value)) for key, value in used.items()}
    return inputs
