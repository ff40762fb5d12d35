"""Changes in labels and scores after training with the answers of a review."""

from collections import Counter
from pathlib import Path

from phototag.apps.lock_file import (
    CORRECTIONS,
    LOCK,
    list_changed_data,
    list_inputs,
    parse_stages,
)
from phototag.base.errors import InputError
from phototag.base.files import parse_json, read_json, read_source
from phototag.base.git import ask_git, run_git
from phototag.metrics.selection import VAL_PREFIX
from phototag.review.inputs import MANIFEST, MODEL
from phototag.verification.corrections import ANSWERS, latest_answers, parse_answers, read_answers

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
    for name in (METRICS, LOCK):
        if not (root / name).is_file():
            raise InputError(f"{name} is missing: run `dvc repro`")
        if _show(root, revision, name) is None:
            raise InputError(f"{revision} is not a commit with {name}: pass a commit that has it")
    stages = parse_stages(read_source(root / LOCK), LOCK)
    hashes = {
        (entry["path"], entry.get("md5"))
        for name, stage in stages.items()
        for entry in [*stage.get("deps", ()), *stage.get("outs", ())]
        if name != "register" and entry["path"] in (MANIFEST, MODEL)
    }
    if list_changed_data(root) or len(hashes) > len(dict(hashes)):
        raise InputError(
            "the model was not trained with the latest answers and photos: run `dvc repro`"
        )

    committed = _show(root, revision, CORRECTIONS) or ""
    old = latest_answers(parse_answers(committed.encode(), f"{revision}:{CORRECTIONS}").values())
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
    scores = read_json(root / METRICS)
    old_scores = parse_json(_show(root, revision, METRICS) or "", f"{revision}:{METRICS}")
    differences = ", ".join(
        f"{name} {old_scores[key]:.3f} -> {scores[key]:.3f} ({scores[key] - old_scores[key]:+.3f})"
        for prefix in ("", VAL_PREFIX)
        for key, name in ((f"{prefix}{key}", name) for key, name in SCORES.items())
        if key in old_scores and key in scores
    )
    number = f"Labels changed since {revision}: {changed.total()} ({shown})."
    text = f"{number} Scores: {differences or 'on another split than before, so not comparable'}."
    old_stages = parse_stages(_show(root, revision, LOCK) or "", f"{revision}:{LOCK}")
    inputs, old_inputs = list_inputs(stages), list_inputs(old_stages)
    others = [
        name
        for name in sorted(inputs.keys() | old_inputs.keys())
        if name != CORRECTIONS and inputs.get(name) != old_inputs.get(name)
    ]
    if others:
        text += f" These inputs changed too and may explain the difference: {', '.join(others)}."
    return text


def _show(root: Path, revision: str, path: str) -> str | None:
    """Return the text of a file at a git revision, or None if there is no such file."""
    return ask_git(root, "show", "--end-of-options", f"{revision}:./{path}")
