"""Summary of the last evaluation for `phototag summary`."""

from pathlib import Path

from phototag.base.errors import InputError
from phototag.base.files import read_json


def summarize(root: Path) -> str:
    """Describe the last evaluation: its scores, the registration, the report, and next commands.

    Args:
        root: Root of the project.

    Raises:
        InputError: No evaluation has run.
    """
    metrics = root / "reports/evaluate/metrics.json"
    if not metrics.is_file():
        raise InputError(f"{metrics} is missing: run `dvc repro` first")
    scores = read_json(metrics)
    width = max(map(len, scores))
    return "\n".join(
        [
            *(f"  {name:<{width}}  {_format_score(value)}" for name, value in scores.items()),
            "",
            *_describe_registration(root / "reports/register/decision.json"),
            f"Report:     {metrics.with_name('report.html')}",
            "",
            "Next:",
            "  dvc metrics diff                 # compare with the last commit",
            "  dvc exp run -S lr=0.001          # train with another learning rate",
            "  phototag ui                      # open MLflow",
        ]
    )


def _describe_registration(decision_file: Path) -> list[str]:
    if not decision_file.is_file():
        return []
    decision = read_json(decision_file)
    if decision["version"] is None:
        return [f"Registered: no, {decision['reason']}"]
    # DVC may have restored an old file, which does not know about later decisions.
    time = f" on {decision['time'][:16]} UTC" if "time" in decision else ""
    role = "champion" if decision["champion"] else "challenger"
    return [
        f"Registered: {decision['name']} version {decision['version']}, {role} "
        f"({decision['reason']}){time}; `phototag history` lists later decisions"
    ]


def _format_score(value: float) -> str:
    """Format a score with 4 decimals and a count as an integer."""
    return str(value) if isinstance(value, int) else f"{value:.4f}"
