"""Summary of the last evaluation for `phototag summary`."""

import json
from pathlib import Path
from typing import Any

from phototag.base.errors import InputError
from phototag.base.files import read_json
from phototag.base.git import show_file

METRICS = "reports/evaluate/metrics.json"


def summarize(root: Path) -> str:
    """Describe the last evaluation: its scores, the registration, the report, and next commands.

    Args:
        root: Root of the project.

    Raises:
        InputError: No evaluation has run.
    """
    if not (root / METRICS).is_file():
        raise InputError(f"{root / METRICS} is missing: run `dvc repro` first")
    scores = read_json(root / METRICS)
    committed = _read_committed(root)
    width = max(map(len, scores))
    lines = []
    for name, value in scores.items():
        line = f"  {name:<{width}}  {_format_score(value)}"
        if committed.get(name, value) != value:
            line += f"   (last commit: {_format_score(committed[name])})"
        lines.append(line)
    if any(committed.get(name, value) != value for name, value in scores.items()):
        lines += [
            "",
            "Scores differ from the last commit if params, photos or the processor differ.",
            "`git commit -a` keeps these results, `git restore dvc.lock reports` drops them.",
        ]
    lines += [
        "",
        *_describe_registration(root / "reports/register/decision.json"),
        f"Report:     {root / 'reports/evaluate/report.html'}",
        "",
        "Next:",
        "  dvc exp run -S lr=0.001 && dvc exp show --only-changed",
        "  phototag ui",
    ]
    return "\n".join(lines)


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


def _read_committed(root: Path) -> dict[str, Any]:
    """Return the metrics of the last commit, or an empty dict if there are none."""
    try:
        committed: dict[str, Any] = json.loads(show_file(root, "HEAD", METRICS) or "{}")
    except ValueError:
        return {}
    return committed
