"""Summary of the last evaluation, printed by `phototag summary`."""

from pathlib import Path

from phototag.apps.lock_file import LOCK, list_changed_data
from phototag.base.errors import InputError
from phototag.base.files import read_json
from phototag.registry.decision import describe_decision

NEXT = """
Next:
  dvc metrics diff                 # compare with the last commit
  dvc exp run -S weight_decay=0.01 # train with a different regularization
  phototag ui                      # open the MLflow UI"""


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
    if not isinstance(scores, dict) or not scores:
        raise InputError(f"{metrics} contains no scores: run `dvc repro`")
    width = max(map(len, scores))
    lines = []
    for name, value in scores.items():
        shown = f"{value:.4f}" if isinstance(value, float) else value
        lines.append(f"  {name:<{width}}  {shown}")
    if (root / LOCK).is_file() and (changed := list_changed_data(root)):
        lines.append(
            f"These scores are outdated: run `dvc repro`, as {' and '.join(changed)} changed."
        )
    registration = _describe_registration(root / "reports/register/decision.json")
    report = f"Report:     {metrics.with_name('report.html')}"
    return "\n".join([*lines, "", *registration, report, NEXT])


def _describe_registration(decision_file: Path) -> list[str]:
    if not decision_file.is_file():
        return []
    decision = read_json(decision_file)
    text = describe_decision(decision)
    if decision["version"] is None:
        return [text]
    # DVC may have restored an old file. The text therefore names the command for later decisions.
    return [f"{text} on {decision['time'][:16]} UTC; `phototag history` lists later decisions"]
