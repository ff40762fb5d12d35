"""What the last `dvc repro` gave, in a few lines."""

from pathlib import Path

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
    width = max(map(len, scores))
    lines = [f"  {name:<{width}}  {value:.4f}" for name, value in scores.items()]
    lines.append("")
    if decision_file.is_file():
        decision = read_json(decision_file)
        role = "champion" if decision["champion"] else "challenger"
        lines.append(
            f"Registered: {decision['name']} version {decision['version']}, {role} "
            f"({decision['reason']})"
        )
    lines += [
        f"Report:     {(folder / 'report.html').resolve()}",
        "",
        "Next:",
        "  source .venv/bin/activate && dvc exp run -S lr=0.001 && dvc exp show --only-changed",
        "  make ui",
    ]
    return "\n".join(lines)
