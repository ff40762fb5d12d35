"""Number of photos with each label, after the edits of labels and the corrections."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from phototag.base.errors import InputError
from phototag.base.params import read_params
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.photos import Photo
from phototag.verification.corrections import read_answers
from phototag.verification.edited_labels import EditedLabels
from phototag.verification.edited_targets import apply_edits
from phototag.verification.imports import RawDataset, read_dataset
from phototag.verification.label_edits import LabelEdits, read_edits
from phototag.verification.params import VerificationParams

EDITS, CORRECTIONS, MANIFEST = "data/labels.yaml", "data/corrections.csv", "data/manifest.csv"


class Counts(NamedTuple):
    """The number of photos that have a label, that lack it, and for which it is unknown."""

    yes: int
    no: int
    unknown: int


@dataclass(frozen=True)
class LabelState:
    """The labels of a project's dataset after the edits in data/labels.yaml.

    Attributes:
        edited: Edits, labels of the label files, and labels in `data.labels`.
        counts: Label after all edits -> number of photos.
        changed: Edit -> number of photos whose labels it changes.
        uncounted: Number of answers in the corrections file that are not counted, because the
            contents of the photos are not known before `dvc repro`.
    """

    edited: EditedLabels
    counts: dict[str, Counts]
    changed: dict[str, int]
    uncounted: int


def read_state(
    root: Path, edits: LabelEdits | None = None, wanted: Sequence[str] | None = None
) -> LabelState:
    """Count the photos with each label after the edits of labels and the corrections.

    Photos that the last `dvc repro` rejected are not counted.

    Args:
        root: Root of the project.
        edits: Edits of labels (default: those in data/labels.yaml).
        wanted: Labels in `data.labels` (default: those in params.yaml).

    Raises:
        InputError: A file is invalid or missing, or an edit names a label that does not exist.
    """
    data = read_params(VerificationParams, root / "params.yaml").data
    edits = read_edits(root / EDITS) if edits is None else edits
    wanted = data.labels if wanted is None else wanted
    if not (root / data.raw).exists():
        raise InputError(
            f"data.raw: {data.raw} is missing: run `dvc pull`, or `dvc repro sample` for the "
            "synthetic dataset"
        )
    dataset = read_dataset(root / data.raw)
    edited = EditedLabels(edits, dataset.list_labels(), wanted, EDITS).check()
    all_labels = replace(edited, wanted=())
    answers = read_answers(root / CORRECTIONS)
    photos = _list_photos(root, dataset)
    labels = dataset.read_labels((), edited.fill)
    targets = dataset.merge_targets(labels.targets, [photo.sha256 for photo in photos])
    result = apply_edits(all_labels, targets, photos, answers, CORRECTIONS)
    kept = [photo.decision != "rejected" for photo in photos]
    counts = {
        label: Counts(*(int((column[kept] == value).sum()) for value in (1, 0, UNKNOWN)))
        for label, column in result.targets.items()
    }
    hashed = all(photo.sha256 or photo.decision == "rejected" for photo in photos)
    return LabelState(edited, counts, result.counts, 0 if hashed else len(answers))


def _list_photos(root: Path, dataset: RawDataset) -> list[Photo]:
    """Return the decisions and hashes of the last `dvc repro`, or the hashes in sources.csv."""
    path = root / MANIFEST
    if path.is_file():
        columns = ["file", "decision", "sha256"]
        manifest = pd.read_csv(path, usecols=columns, dtype=str, keep_default_na=False)
        if list(manifest["file"]) == dataset.name_photos():
            rows = manifest[["decision", "sha256"]].itertuples(index=False)
            return [Photo(decision, "", sha256=sha256) for decision, sha256 in rows]
    return [Photo("kept", "", sha256=one.cells.get("sha256", "")) for one in dataset.stored]


def compare_counts(before: LabelState, after: LabelState) -> list[str]:
    """Return a line for each label whose number of photos differs between two states."""
    lines = []
    for label in sorted(before.counts.keys() | after.counts.keys()):
        old, new = before.counts.get(label), after.counts.get(label)
        if old != new:
            texts = [_format_counts(counts) for counts in (old, new)]
            lines.append(f"{label}: {texts[0]} -> {texts[1]}")
    return lines


def _format_counts(counts: Counts | None) -> str:
    if counts is None:
        return "no label"
    return f"{counts.yes} yes, {counts.no} no, {counts.unknown} unknown"


def describe_labels(root: Path) -> str:
    """Return a table of the labels and their numbers of photos, and the list of edits."""
    state = read_state(root)
    rows: list[tuple[str, ...]] = [("label", *Counts._fields)]
    for label, counts in state.counts.items():
        used = label in state.edited.learned
        rows.append((label if used else f"{label} (not in data.labels)", *map(str, counts)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    lines += ["", f"edits in {EDITS}:" if state.changed else f"{EDITS} contains no edits"]
    lines += [f"  {edit}  ({count} photos)" for edit, count in state.changed.items()]
    if state.uncounted:
        lines.append(f"answers in {CORRECTIONS}, not counted before `dvc repro`: {state.uncounted}")
    return "\n".join(lines)
