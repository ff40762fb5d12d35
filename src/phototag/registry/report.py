"""The page on a decision: both models' scores side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from phototag.base.files import write_json, write_table
from phototag.pages.html import write_page


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
