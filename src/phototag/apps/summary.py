"""Summary of the last evaluation, printed by `phototag summary`."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phototag.base.errors import InputError
from phototag.base.files import read_json
from phototag.base.params import read_params, read_values
from phototag.registry.decision import describe_decision
from phototag.verification.params import VerificationParams

LOCK, CORRECTIONS = "dvc.lock", "data/corrections.csv"
NEXT = """
Next:
  dvc metrics diff                 # compare with the last commit
  dvc exp run -S weight_decay=0.01 # train with a different regularization
  make ui                          # open the MLflow UI
  phototag import SOURCE           # import photos of your own"""


def summarize(root: Path) -> str:
    """Return the latest scores, registered version, path of the report and next commands as text.

    Args:
        root: Root folder of the project.

    Raises:
        InputError: The evaluate stage has not been run, or one of its files is damaged.
    """
    metrics = root / "reports/evaluate/metrics.json"
    if not metrics.is_file():
        raise InputError(f"{metrics} is missing: run `dvc repro` first")
    scores = read_json(metrics)
    if not isinstance(scores, dict):
        raise InputError(f"{metrics} contains no scores: run `dvc repro`")
    width = max(map(len, scores), default=0)
    lines = []
    for name, value in scores.items():
        shown = f"{value:.4f}" if isinstance(value, float) else value
        lines.append(f"  {name:<{width}}  {shown}")
    if changed := list_changed_data(root):
        lines.append(f"The scores are outdated: {', '.join(changed)} changed. Run `dvc repro`.")
    registration = _describe_registration(root / "reports/register/decision.json")
    report = f"Report:     {metrics.with_name('report.html')}"
    return "\n".join([*lines, "", *registration, report, NEXT])


def list_changed_data(root: Path) -> list[str]:
    """Return the paths of photos and answers that differ from those of the last `dvc repro`.

    A folder is compared by the number and the size of its files, because hashing takes long.
    """
    if not (root / LOCK).is_file():
        return []
    deps = read_values(root / LOCK).get("stages", {}).get("resize", {}).get("deps", ())
    recorded = {dep["path"]: dep for dep in deps}
    raw = str(Path(read_params(VerificationParams, root / "params.yaml").data.raw))
    return [name for name in (raw, CORRECTIONS) if _is_changed(root / name, recorded.get(name, {}))]


def _is_changed(path: Path, recorded: Mapping[str, Any]) -> bool:
    if path.is_dir():
        sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
        return (len(sizes), sum(sizes)) != (recorded.get("nfiles"), recorded.get("size"))
    if not path.is_file():  # for example, the photos were not pulled
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() != recorded.get("md5")


def _describe_registration(decision_file: Path) -> list[str]:
    if not decision_file.is_file():
        return []
    decision = read_json(decision_file)
    text = describe_decision(decision)
    if decision["version"] is None:
        return [text]
    # DVC may have restored an old file. The text therefore names the command for later decisions.
    text = f"{text} on {decision['time'][:16]} UTC; `phototag history` lists later decisions"
    return [text, *_list_changes(decision)]


def _list_changes(decision: Mapping[str, Any]) -> list[str]:
    """Return notes on changes in MLflow after a decision; none if there is no store to ask."""
    from phototag.registry.history import describe_changes
    from phototag.tracking.store import StoreError, connect

    store = connect()
    if store.is_missing:
        return []
    try:
        with store:
            return [f"  note: {change}" for change in describe_changes(store, decision)]
    except StoreError as error:
        return [f"  note: {error}"]
