"""The effect of answers on labels and scores, after the model was trained with them."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import yaml

from phototag.base.errors import InputError
from phototag.base.files import read_json
from phototag.base.git import ask_git
from phototag.dataset.manifest import read_kept
from phototag.review.evidence import MANIFEST, SPLITS
from phototag.verification.corrections import (
    UNDO,
    Answer,
    latest_answers,
    parse_answers,
    read_answers,
)

CORRECTIONS, METRICS = "data/corrections.csv", "reports/evaluate/metrics.json"
SCORES = {"f1_micro": "micro F1", "f1_macro": "macro F1", "mAP": "mAP"}
Digests = dict[tuple[str, str], str]


def describe_effect(root: Path, revision: str) -> str:
    """Return sentences about the labels and scores that changed since a revision.

    Args:
        root: Root of the project, after `dvc repro`.
        revision: Revision of git that contains the answers and scores before.

    Raises:
        InputError: The revision or the project has no evaluation, or `dvc repro` has not run since
            the last answer.
    """
    before = ask_git(root, "show", f"{revision}:./{METRICS}")
    if before is None:
        raise InputError(f"{revision} has no {METRICS}: pass a commit after an evaluation")
    if not (root / METRICS).is_file():
        raise InputError(f"{METRICS} is missing: run `dvc repro`")
    digests = _read_digests((root / "dvc.lock").read_text() if (root / "dvc.lock").exists() else "")
    _check_trained(root, digests)
    old_answers = ask_git(root, "show", f"{revision}:./{CORRECTIONS}") or ""
    known = parse_answers(old_answers.encode(), f"{revision}:{CORRECTIONS}").values()
    # The difference of multisets, because git may have merged the rows in any order.
    new = list((Counter(read_answers(root / CORRECTIONS).values()) - Counter(known)).elements())
    if not new:
        return f"There are no answers since {revision}."
    last, first = latest_answers(new), latest_answers(reversed(new))
    changed = [last[entry] for entry in last if last[entry].answer != first[entry].old]
    kinds = Counter(answer.answer for answer in changed)
    shown = ", ".join(f"{kinds[kind]} to {kind}" for kind in ("yes", "no", "unsure"))
    scores, old = read_json(root / METRICS), json.loads(before)
    differences = ", ".join(
        f"{name} {old[key]:.3f} -> {scores[key]:.3f} ({scores[key] - old[key]:+.3f})"
        for key, name in SCORES.items()
        if key in old
    )
    # An undone answer and its undo do not count.
    number = len(new) - 2 * sum(answer.ranking == UNDO for answer in new)
    sentences = [
        f"Answers since {revision}: {number}. Changed labels: {len(changed)} ({shown}).",
        f"Scores: {differences}.",
    ]
    if evaluated := _count_evaluated(root, changed):
        sentences.append(
            f"Changed labels of evaluated photos: {evaluated}. A part of the difference comes from "
            "these labels, not from the model."
        )
    old_digests = _read_digests(ask_git(root, "show", f"{revision}:./dvc.lock") or "")
    if old_digests.get(("split", SPLITS)) != digests.get(("split", SPLITS)):
        sentences.append("The split changed too, because it balances the labels.")
    return " ".join(sentences)


def _read_digests(lock: str) -> Digests:
    """Return the MD5 of each input and output of a stage in a dvc.lock, by stage and path."""
    stages = (yaml.safe_load(lock) or {}).get("stages", {})
    return {
        (name, entry["path"]): entry.get("md5", "")
        for name, stage in stages.items()
        for entry in [*stage.get("deps", ()), *stage.get("outs", ())]
    }


def _check_trained(root: Path, digests: Digests) -> None:
    """Raise an error if the last evaluation did not use the present answers."""
    answers = hashlib.md5((root / CORRECTIONS).read_bytes(), usedforsecurity=False).hexdigest()
    evaluated = digests.get(("evaluate", MANIFEST))
    if digests.get(("resize", CORRECTIONS)) != answers or digests["resize", MANIFEST] != evaluated:
        raise InputError("the model was not trained with the last answers: run `dvc repro`")


def _count_evaluated(root: Path, answers: Iterable[Answer]) -> int:
    """Count the answers about photos of test, or of val if there is no test."""
    manifest = read_kept(root / MANIFEST)
    splits = pd.read_csv(root / SPLITS, keep_default_na=False, dtype=str)["split"]
    evaluated = set(manifest["sha256"][splits == ("test" if (splits == "test").any() else "val")])
    return sum(answer.sha256 in evaluated for answer in answers)
