"""Changes in labels and scores after training with the answers of a review."""

import hashlib
from collections import Counter
from pathlib import Path

from phototag.apps.results import (
    CORRECTIONS,
    LOCK,
    METRICS,
    Stages,
    list_hashes,
    parse_lock,
    parse_scores,
    read_lock,
    read_scores,
)
from phototag.base.errors import InputError
from phototag.base.git import ask_git, run_git
from phototag.metrics.selection import VAL_PREFIX
from phototag.verification.corrections import ANSWERS, drop_undone, parse_answers

MANIFEST = "data/manifest.csv"
SCORES = {"f1_micro": "micro F1", "f1_macro": "macro F1", "mAP": "mAP"}


def describe_effect(root: Path, revision: str) -> str:
    """Describe the changes in labels and scores since a git revision.

    Raises:
        InputError: The revision does not contain the results of an evaluation, or `dvc repro` has
            not run since the last answer.
    """
    run_git(root, "rev-parse", "--git-dir")  # raises an error outside git
    scores, old_lock, old_rows = (
        ask_git(root, "show", "--end-of-options", f"{revision}:./{name}")
        for name in (METRICS, LOCK, CORRECTIONS)
    )
    if not scores or not old_lock:
        raise InputError(f"{revision} is not a commit with {METRICS} and {LOCK}: pass another one")
    before, after = parse_scores(scores, f"{revision}:{METRICS}"), read_scores(root)
    old = parse_answers((old_rows or "").encode(), f"{revision}:{CORRECTIONS}").values()
    path = root / CORRECTIONS
    rows = path.read_bytes() if path.is_file() else b""
    new = parse_answers(rows, str(path)).values()
    old_stages, stages = parse_lock(old_lock, f"{revision}:{LOCK}"), read_lock(root)
    written, used = list_hashes(stages["resize"], "outs"), list_hashes(stages["evaluate"], "deps")
    trained_with = list_hashes(stages["resize"], "deps").get(CORRECTIONS)
    latest = hashlib.md5(rows).hexdigest()
    if trained_with != latest or written.get(MANIFEST) != used.get(MANIFEST):
        raise InputError("the model was not trained with the latest labels: run `dvc repro`")

    given = {answer.entry: answer.old for answer in reversed(new)}
    labels, old_labels = (
        given | {answer.entry: answer.answer for answer in drop_undone(answers)}
        for answers in (new, old)
    )
    changed = Counter(labels[entry] for entry in given if labels[entry] != old_labels[entry])
    counts = ", ".join(f"{changed[answer]} to {answer}" for answer in ANSWERS)
    names = {f"{prefix}{key}": name for prefix in ("", VAL_PREFIX) for key, name in SCORES.items()}
    differences = ", ".join(
        f"{name} {before[key]:.3f} -> {after[key]:.3f} ({after[key] - before[key]:+.3f})"
        for key, name in names.items()
        if key in before and key in after
    )
    text = (
        f"Labels changed since {revision}: {changed.total()} ({counts}). "
        f"Scores: {differences or 'on another split than before, so not comparable'}."
    )
    inputs = _list_inputs(stages) ^ _list_inputs(old_stages)
    others = sorted({name for name, _ in inputs} - {CORRECTIONS})
    if others:
        text += f" These inputs changed too and may explain the difference: {', '.join(others)}."
    return text


def _list_inputs(stages: Stages) -> set[tuple[str, str]]:
    """Return the dependencies of `resize` with their hashes, and all params with their values."""
    inputs = set(list_hashes(stages["resize"], "deps").items())
    for stage in stages.values():
        used = stage.get("params", {}).get("params.yaml", {})
        inputs |= {(key, repr(value)) for key, value in used.items()}
    return inputs
