"""Decision of the stage `register`, and the page with the decision and the models' scores."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from phototag.base.files import project_root, write_json, write_table
from phototag.pages.escaping import escape_spreadsheet_cells
from phototag.pages.html import write_page
from phototag.tracking.naming import project_name

UNDO = "git restore params.yaml dvc.lock reports && dvc checkout"
ADVICE = "to replace it, "  # first words of the note about a champion that was not compared
COLUMNS = ["metric", "challenger", "champion", "difference", "low", "high"]


def make_decision(
    name: str,
    kind: str,
    version: int | None,
    previous: int | None,
    wins: bool,
    reason: str,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Return a decision about the champion, with the current time in UTC.

    `name` is the name of the model. `kind` is `challenge`, `promote`, `rollback` or `experiment`.
    `version` becomes the champion if `wins` is true, and is None if no version was registered.
    `previous` is the former champion. `notes` are short lines about the comparison.
    """
    return {
        "name": name,
        "version": version,
        "champion": wins,
        "previous_champion": previous,
        "kind": kind,
        "reason": reason,
        "notes": [*notes],
        "time": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }


def describe_decision(decision: Mapping[str, Any]) -> str:
    """Return a line with the version, its role and the reason of a decision, and its notes."""
    if decision["version"] is None:
        return f"Registered: no, {decision['reason']}"
    role = "champion" if decision["champion"] else "challenger"
    name = f"{decision['name']} version {decision['version']}"
    notes = (f"  {note}" for note in decision.get("notes", ()))
    return "\n".join([f"Registered: {name}, {role} ({decision['reason']})", *notes])


def skip_registration(folder: Path, experiment: str) -> None:
    """Write the decision that a DVC experiment is not registered, and an empty comparison.

    Print how to keep and how to discard the experiment. No printed command changes
    data/corrections.csv, which may have answers that are not committed.
    """
    reason = (
        f"the experiment {experiment} is not registered: run `dvc exp apply {experiment}` and "
        "`dvc repro --force --single-item register`, or set registry.experiments to true"
    )
    # In a copy of the project, DVC runs queued experiments and those with the option --temp.
    is_copy = Path.cwd().resolve() != project_root().resolve()
    name = shlex.quote(experiment)
    print(
        f"The experiment {experiment} is not registered.\n"
        f"To keep it:     {f'dvc exp apply {name} && ' if is_copy else ''}"
        f"dvc repro --force --single-item register && git commit -am {name}\n"
        f"To discard it:  {f'dvc exp remove {name}' if is_copy else UNDO}"
    )
    write_decision(folder, make_decision(project_name(), "experiment", None, None, False, reason))


def write_decision(
    folder: Path,
    decision: Mapping[str, Any],
    scores: pd.DataFrame | None = None,
    labels: pd.DataFrame | None = None,
    **page: Any,
) -> None:
    """Write a decision to decision.json and report.html, and its tables to CSV files.

    Args:
        folder: Folder to which the files are written.
        decision: Decision returned by `make_decision`.
        scores: Scores of a `Comparison`, written to comparison.csv (default: an empty table).
        labels: Labels of a `Comparison`, written to labels.csv (default: an empty table).
        page: Other values of the template report.html.j2 (default: nothing is shown).
    """
    scores = pd.DataFrame(columns=COLUMNS) if scores is None else scores
    labels = pd.DataFrame(columns=["label", *COLUMNS[1:]]) if labels is None else labels
    write_json(folder / "decision.json", decision)
    write_table(folder / "comparison.csv", scores)
    write_table(folder / "labels.csv", escape_spreadsheet_cells(labels))
    reason, outcome = decision["reason"], "became" if decision["champion"] else "did not become"
    headline = f"Version {decision['version']} {outcome} the champion: {reason}."
    if decision["version"] is None:
        headline = f"{reason[0].upper()}{reason[1:]}."
    write_page(
        folder / "report.html",
        "phototag.registry",
        "report.html.j2",
        title="Comparison with the champion",
        headline=[headline],
        decision=decision,
        comparison=scores.to_dict("records"),
        **page,
    )
