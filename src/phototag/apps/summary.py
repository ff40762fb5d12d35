"""Summary of the last evaluation, printed by `phototag summary`."""

from pathlib import Path

from phototag.apps.results import METRICS, read_scores
from phototag.base.files import read_json
from phototag.registry.decision import describe_decision

NEXT = """
Next:
  dvc metrics diff                 # compare with the last commit
  dvc exp run -S weight_decay=0.01 # train with a different regularization
  make ui                          # open the MLflow UI
  phototag import SOURCE           # import photos of your own"""


def summarize(root: Path) -> str:
    """Return the latest scores, registered version, path of the report and next commands as text.

    Raises:
        InputError: The evaluate stage has not been run, or one of its files is damaged.
    """
    scores = read_scores(root)
    width = max(map(len, scores), default=0)
    lines = []
    for name, value in scores.items():
        shown = f"{value:.4f}" if isinstance(value, float) else value
        lines.append(f"  {name:<{width}}  {shown}")
    registration = _describe_registration(root / "reports/register/decision.json")
    report = f"Report:     {(root / METRICS).with_name('report.html')}"
    return "\n".join([*lines, "", *registration, report, NEXT])


def _describe_registration(decision_file: Path) -> list[str]:
    if not decision_file.is_file():
        return []
    decision = read_json(decision_file)
    text = describe_decision(decision)
    if decision["version"] is None:
        return [text]
    # The registry may have changed since, or DVC may have restored an old file. Importing MLflow
    # takes seconds, so the text only names the command that reads the registry.
    return [
        f"{text} on {decision['time'][:16]} UTC; `phototag history` shows the current champion and "
        "later decisions",
        f"Comparison: {decision_file.with_name('report.html')}",
    ]
