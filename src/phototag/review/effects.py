"""Changes in labels and scores after training with the answers of a review."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import yaml

from phototag.base.errors import InputError
from phototag.base.files import read_json
from phototag.base.git import ask_git
from phototag.metrics.selection import VAL_PREFIX
from phototag.review.evidence import MANIFEST
from phototag.verification.corrections import ANSWERS, latest_answers, parse_answers, read_answers

CORRECTIONS, METRICS = "data/corrections.csv", "reports/evaluate/metrics.json"
SCORES = {"f1_micro": "micro F1", "f1_macro": "macro F1", "mAP": "mAP"}


def describe_effect(root: Path, revision: str) -> str:
    """Describe the changes in labels and scores since a git revision.

    Args:
        root: Root folder of a project in which `dvc repro` has run.
        revision: Git revision that contains the earlier answers and scores.

    Raises:
        InputError: The revision does not contain the results of an evaluation, or `dvc repro` has
            not run since the last answer.
    """
    before = ask_git(root, "show", f"{revision}:./{METRICS}")
    if before is None:
        raise InputError(f"{revision} has no {METRICS}: pass a commit that contains them")
    lock = yaml.safe_load((root / "dvc.lock").read_text())
    digests = {
        (name, entry["path"]): entry.get("md5")
        for name, stage in lock["stages"].items()
        for entry in [*stage.get("deps", ()), *stage.get("outs", ())]
    }
    answers = hashlib.md5((root / CORRECTIONS).read_bytes(), usedforsecurity=False).hexdigest()
    manifests = {digests.get((stage, MANIFEST)) for stage in ("resize", "evaluate")}
    if digests.get(("resize", CORRECTIONS)) != answers or len(manifests) > 1:
        raise InputError("the model was not trained with the latest answers: run `dvc repro`")

    committed = ask_git(root, "show", f"{revision}:./{CORRECTIONS}") or ""
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
    scores, old_scores = read_json(root / METRICS), json.loads(before)
    differences = ", ".join(
        f"{name} {old_scores[key]:.3f} -> {scores[key]:.3f} ({scores[key] - old_scores[key]:+.3f})"
        for prefix in ("", VAL_PREFIX)
        for key, name in ((f"{prefix}{key}", name) for key, name in SCORES.items())
        if key in old_scores and key in scores
    )
    number = f"Labels changed since {revision}: {changed.total()} ({shown})."
    return f"{number} Scores: {differences or 'on another split than before, so not comparable'}."
