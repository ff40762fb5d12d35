"""What answers changed, once the model was trained on them."""

import getpass
import hashlib
import json
import subprocess
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from phototag.apps.evidence import MANIFEST, SPLITS
from phototag.base.errors import InputError
from phototag.base.files import read_json
from phototag.data.manifest import read_kept
from phototag.intake.corrections import UNDO, Answer, parse_answers, read_answers

CORRECTIONS, METRICS = "data/corrections.csv", "reports/evaluate/metrics.json"
TOLD = {"f1_micro": "micro F1", "f1_macro": "macro F1", "mAP": "mAP"}


def name_user() -> str:
    """Return git's user.name, or the system's name of who is at the keyboard."""
    found = subprocess.run(
        ["git", "config", "user.name"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or getpass.getuser()


def describe_effect(root: Path, revision: str) -> str:
    """Say in words what the answers since a revision changed, in labels and in scores.

    Args:
        root: The repository, after `dvc repro`.
        revision: Of git, with the answers and scores of before.

    Raises:
        InputError: There is no such revision or no evaluation, or `dvc repro` has not run since the
            last answer.
    """
    before = _show(root, revision, METRICS)
    if not (root / METRICS).is_file():
        raise InputError(f"{METRICS} is missing: `dvc repro` makes it")
    _refuse_untrained(root)
    then = parse_answers(_show(root, revision, CORRECTIONS, missing=b""), CORRECTIONS)
    answers = read_answers(root / CORRECTIONS)
    new = list((Counter(answers.values()) - Counter(then.values())).elements())
    if not new:
        return f"There are no answers since {revision}."
    first, last = {}, {}
    for answer in new:
        first.setdefault(answer.entry, answer)
        last[answer.entry] = answer
    changed = {e: last[e] for e in last if last[e].answer != first[e].old}
    kinds = Counter(answer.answer for answer in changed.values())
    kinds_told = ", ".join(f"{kinds[kind]} to {kind}" for kind in ("yes", "no", "unsure"))
    scores, old = read_json(root / METRICS), json.loads(before)
    told = ", ".join(
        f"{name} {old[key]:.3f} -> {scores[key]:.3f} ({scores[key] - old[key]:+.3f})"
        for key, name in TOLD.items()
        if key in old
    )
    # What was taken back counts for nothing, and neither does taking it back.
    number = len(new) - 2 * sum(answer.ranking == UNDO for answer in new)
    sentence = (
        f"{number} {'answer' if number == 1 else 'answers'} since {revision} changed "
        f"{len(changed)} {'entry' if len(changed) == 1 else 'entries'}"
        f"{f' ({kinds_told})' if changed else ''}: {told}."
    )
    judged = _count_judged(root, changed.values())
    if judged:
        sentence += (
            f" {judged} of them {'is' if judged == 1 else 'are'} on judged photos: a part of the "
            "difference is the labels', not the model's."
        )
    return sentence


def _show(root: Path, revision: str, path: str, missing: bytes | None = None) -> bytes:
    command = ["git", "-C", str(root), "show", f"{revision}:./{path}"]
    found = subprocess.run(command, capture_output=True, check=False)
    if found.returncode == 0:
        return found.stdout
    if missing is not None:
        return missing
    raise InputError(f"git has no {path} of {revision}: name a commit that has its results")


def _refuse_untrained(root: Path) -> None:
    """Ask dvc.lock whether the scores are those of the answers that stand there."""
    stages: dict[str, Any] = {}
    if (root / "dvc.lock").is_file():
        stages = yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"]

    def digest(stage: str, kind: str, path: str) -> str | None:
        listed = stages.get(stage, {}).get(kind, ())
        return next((entry.get("md5") for entry in listed if entry["path"] == path), None)

    answers = hashlib.md5((root / CORRECTIONS).read_bytes(), usedforsecurity=False).hexdigest()
    judged = digest("evaluate", "deps", MANIFEST)
    if digest("resize", "deps", CORRECTIONS) != answers or (
        digest("resize", "outs", MANIFEST) != judged
    ):
        raise InputError("the last answers are not in the model yet: run `dvc repro` first")


def _count_judged(root: Path, answers: Iterable[Answer]) -> int:
    manifest = read_kept(root / MANIFEST)
    splits = pd.read_csv(root / SPLITS, keep_default_na=False, dtype=str)["split"]
    judged = set(manifest["sha256"][splits == ("test" if (splits == "test").any() else "val")])
    return sum(answer.sha256 in judged for answer in answers)
