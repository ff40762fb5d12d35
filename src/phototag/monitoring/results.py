"""Results of all windows: metrics.json, one page and one table per window, and MLflow runs."""

from pathlib import Path
from typing import Any

from phototag.base.files import read_json, write_json, write_table
from phototag.monitoring.assessment import Assessment
from phototag.pages.escaping import escape_spreadsheet_cells
from phototag.pages.html import write_page

METRICS = "metrics.json"


def read_windows(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the metrics of each window by name, in the order in which they were added."""
    path = folder / METRICS
    return dict(read_json(path)) if path.is_file() else {}


def number_window(windows: dict[str, dict[str, Any]], version: str, fingerprint: str) -> int:
    """Return the number of a window among those of a model version, starting from 1.

    A window with the same photos keeps its number.
    """
    own = [window for window in windows.values() if window["version"] == version]
    known = (window["window"] for window in own if window["fingerprint"] == fingerprint)
    return int(next(known, 1 + max((window["window"] for window in own), default=0)))


def write_results(
    folder: Path, name: str, version: str, fingerprint: str, assessment: Assessment
) -> dict[str, Any]:
    """Write the table and the page of a window, add it to metrics.json, and return its metrics."""
    metrics = {"version": version, "fingerprint": fingerprint, **assessment.metrics}
    windows = read_windows(folder) | {name: metrics}
    write_table(folder / name / "labels.csv", escape_spreadsheet_cells(assessment.labels))
    write_page(
        folder / name / "report.html",
        "phototag.monitoring",
        "report.html.j2",
        title=f"window {name}, model version {version}",
        headline=[f"{assessment.verdict.capitalize()}: {assessment.reason}."],
        metrics=metrics,
        assessment=assessment,
        rows=assessment.labels.to_dict("records"),
        windows=windows,
    )
    write_json(folder / METRICS, windows)
    return metrics
