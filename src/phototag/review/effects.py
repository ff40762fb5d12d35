"""What answers changed, once the model was trained on them."""

import getpass
import hashlib
import json
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
import yaml

from phototag.base.errors import InputError
from phototag.base.files import read_json
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
    lock = root / "dvc.lock"
    digests = _read_digests(lock.read_bytes() if lock.is_file() else b"")
    _refuse_untrained(root, digests)
    then = parse_answers(_show(root, revision, CORRECTIONS, missing=b""), CORRECTIONS)
    answers = read_answers(root / CORRECTIONS)
    new = list((Counter(answers.values()) - Counter(then.values())).elements())
    if not new:
        return f"There are no answers since {revision}."
    last, first = latest_answers(new), latest_answers(reversed(new))
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
    before_them = _read_digests(_show(root, revision, "dvc.lock", missing=b""))
    if before_them.get(("split", SPLITS)) != digests.get(("split", SPLITS)):
        sentence += " The split is another too: photos changed sides, as labels balance it."
    return sentence


def _show(root: Path, revision: str, path: str, missing: bytes | None = None) -> bytes:
    command = ["git", "-C", str(root), "show", f"{revision}:./{path}"]
    found = subprocess.run(command, capture_output=True, check=False)
    if found.returncode == 0:
        return found.stdout
    if missing is not None:
        return missing
    raise InputError(f"git has no {path} of {revision}: name a commit that has its results")


def _read_digests(lock: bytes) -> dict[tuple[str, str], str]:
    """Read a dvc.lock: stage and path of what it read or wrote -> MD5."""
    stages = (yaml.safe_load(lock) or {}).get("stages", {})
    return {
        (name, entry["path"]): entry.get("md5", "")
        for name, stage in stages.items()
        for entry in [*stage.get("deps", ()), *stage.get("outs", ())]
    }


def _refuse_untrained(root: Path, digests: Mapping[tuple[str, str], str]) -> None:
    """Make sure that the scores are those of the answers that stand there."""
    answers = hashlib.md5((root / CORRECTIONS).read_bytes(), usedforsecurity=False).hexdigest()
    judged = digests.get(("evaluate", MANIFEST))
    if digests.get(("resize", CORRECTIONS)) != answers or (digests["resize", MANIFEST] != judged):
        raise InputError("the last answers are not in the model yet: run `dvc repro` first")


def _count_judged(root: Path, answers: Iterable[Answer]) -> int:
    manifest = read_kept(root / MANIFEST)
    splits = pd.read_csv(root / SPLITS, keep_default_na=False, dtype=str)["split"]
    judged = set(manifest["sha256"][splits == ("test" if (splits == "test").any() else "val")])
    return sum(answer.sha256 in judged for answer in answers)
