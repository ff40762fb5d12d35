"""What is decided about a version, and the page on it: both models' scores side by side."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from phototag.base.files import write_json, write_table
from phototag.pages.html import write_page

MODEL_NAME = "phototag"
COLUMNS = ["metric", "challenger", "champion", "difference", "low", "high"]


def stand_aside(experiment: str) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the decision on an experiment that was not asked to register, and no comparison."""
    decision = {
        "name": MODEL_NAME,
        "version": None,
        "champion": False,
        "previous_champion": None,
        "kind": "experiment",
        "reason": (
            f"the experiment {experiment} is not registered: `dvc exp apply {experiment}` and "
            "`dvc repro --force --single-item register` do it, or -S registry.experiments=true"
        ),
        "time": write_time(),
    }
    return decision, pd.DataFrame(columns=COLUMNS)


def write_time() -> str:
    """Write the present time, by which decisions are told apart."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def write_decision(folder: Path, decision: Mapping[str, Any], comparison: pd.DataFrame) -> None:
    """Write decision.json, comparison.csv and report.html.

    Args:
        folder: Where they go.
        decision: Of `versions.challenge_champion`.
        comparison: Of the same.
    """
    write_json(folder / "decision.json", decision)
    write_table(folder / "comparison.csv", comparison)
    write_page(
        folder / "report.html",
        "phototag.registry",
        "report.html.j2",
        title="Is it better than the champion?",
        headline=[decision["reason"]],
        decision=decision,
        rows=comparison.to_dict("records"),
    )
