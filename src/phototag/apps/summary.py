"""What the last `dvc repro` gave, in a few lines."""

import json
import subprocess
from pathlib import Path
from typing import Any

from phototag.base.errors import InputError
from phototag.base.files import read_json


def summarize(root: Path) -> str:
    """Tell the scores, the registry's decision, where the report is, and what to try next.

    Args:
        root: The repository.

    Raises:
        InputError: Nothing has been evaluated there yet.
    """
    folder, decision_file = root / "reports/evaluate", root / "reports/register/decision.json"
    if not (folder / "metrics.json").is_file():
        raise InputError("there is no evaluation here yet: run `make repro` in the repository")
    scores = read_json(folder / "metrics.json")
    lines = []
    tracked = _read_tracked(root)
    width = max(map(len, scores))
    for name, value in scores.items():
        told = f"  {name:<{width}}  {_show(value)}"
        if tracked.get(name, value) != value:
            told += f"   (in git: {_show(tracked[name])})"
        lines.append(told)
    if any(tracked.get(name, value) != value for name, value in scores.items()):
        lines += [
            "",
            "git has the results of another processor, which rounds differently, or of other "
            "params or photos:",
            "`git commit -a` keeps yours, `git restore dvc.lock reports` its own.",
        ]
    lines.append("")
    if decision_file.is_file():
        decision = read_json(decision_file)
        if decision["version"] is None:
            lines.append(f"Registered: no, {decision['reason']}")
        else:
            # The file may be an old one that DVC brought back: it knows only what was then.
            then = f" on {decision['time'][:16]} UTC" if "time" in decision else ""
            role = "champion" if decision["champion"] else "challenger"
            lines.append(
                f"Registered: {decision['name']} version {decision['version']}, {role} "
                f"({decision['reason']}){then}; `phototag history` tells what came since"
            )
    lines += [
        f"Report:     {(folder / 'report.html').resolve()}",
        "",
        "Next:",
        "  source .venv/bin/activate && dvc exp run -S lr=0.001 && dvc exp show --only-changed",
        "  make ui",
    ]
    return "\n".join(lines)


def _show(value: float) -> str:
    """Write a score; a count, of known entries, has no digits to round."""
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _read_tracked(root: Path) -> dict[str, Any]:
    """Return the metrics of the last commit; nothing where git has none."""
    command = ["git", "-C", str(root), "show", "HEAD:./reports/evaluate/metrics.json"]
    try:
        found: dict[str, Any] = json.loads(
            subprocess.check_output(command, stderr=subprocess.DEVNULL)
        )
    except (OSError, subprocess.CalledProcessError, ValueError):
        return {}
    return found
