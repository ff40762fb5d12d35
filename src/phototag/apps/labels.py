"""The labels of a project: numbers of photos with each label, and edits of data/labels.yaml."""

import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from filelock import FileLock
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from phototag.base.errors import InputError
from phototag.base.files import read_table, report_failed_write, write_text
from phototag.base.params import read_params
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.photos import Photo
from phototag.verification.corrections import CORRECTIONS, read_answers
from phototag.verification.edited_labels import EditedLabels
from phototag.verification.edited_targets import apply_edits
from phototag.verification.imports import RawDataset, read_dataset
from phototag.verification.label_edits import (
    EDITS,
    LabelEdits,
    load_values,
    make_yaml,
    parse_edits,
    read_edits,
)
from phototag.verification.labels import normalize, suggest
from phototag.verification.listing import decode_text
from phototag.verification.params import VerificationParams

MANIFEST = Path("data/manifest.csv")
TARGETS = {"yes": 1, "no": 0, "unknown": UNKNOWN}


@dataclass(frozen=True)
class LabelState:
    """The labels of a project's dataset after the edits in data/labels.yaml.

    Attributes:
        edited: Edits, labels of the label files, and labels in `data.labels`.
        counts: Label after all edits -> yes | no | unknown -> number of photos.
        changed: Edit -> number of photos whose labels it changes.
    """

    edited: EditedLabels
    counts: dict[str, dict[str, int]]
    changed: dict[str, int]


def read_state(root: Path, edits: LabelEdits) -> LabelState:
    """Count the photos with each label after the edits of labels and the corrections.

    Photos that the last `dvc repro` rejected are not counted.

    Raises:
        InputError: A file is invalid or missing, or an edit names a label that does not exist.
    """
    data = read_params(VerificationParams, root / "params.yaml").data
    if not (root / data.raw).exists():
        raise InputError(
            f"data.raw: {data.raw} is missing: run `dvc pull`, or `dvc repro sample` for the "
            "synthetic dataset"
        )
    dataset = read_dataset(root / data.raw)
    edited = EditedLabels(edits, dataset.list_labels(), data.labels).check()
    photos = _list_photos(root, dataset)
    labels = dataset.read_labels((), edited.fill)
    targets = dataset.merge_targets(labels.targets, [photo.sha256 for photo in photos])
    answers = read_answers(root / CORRECTIONS)
    result = apply_edits(replace(edited, wanted=()), targets, photos, answers)
    kept = [photo.decision != "rejected" for photo in photos]
    counts = {
        label: {word: int((column[kept] == value).sum()) for word, value in TARGETS.items()}
        for label, column in result.targets.items()
    }
    return LabelState(edited, counts, result.counts)


def _list_photos(root: Path, dataset: RawDataset) -> list[Photo]:
    """Return the decisions and hashes of the last `dvc repro`, or the hashes in sources.csv."""
    path = root / MANIFEST
    if path.is_file():
        columns = ["file", "decision", "sha256"]
        manifest = read_table(path, usecols=columns, dtype=str, keep_default_na=False)
        if list(manifest["file"]) == dataset.name_photos():
            rows = manifest[["decision", "sha256"]].itertuples(index=False)
            return [Photo(decision, "", sha256=sha256) for decision, sha256 in rows]
    return [Photo("kept", "", sha256=one.cells.get("sha256", "")) for one in dataset.stored]


def describe_labels(root: Path) -> str:
    """Return a table of the labels and their numbers of photos, and the list of edits."""
    state = read_state(root, read_edits(root / EDITS))
    rows = {
        label if label in state.edited.learned else f"{label} (not in data.labels)": counts
        for label, counts in state.counts.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("label", axis="columns")
    edits = [f"  {edit}  ({count} photos)" for edit, count in state.changed.items()]
    title = f"edits in {EDITS}:" if edits else f"{EDITS} contains no edits"
    return "\n".join([table.to_string(), "", title, *edits])


def edit_labels(
    root: Path, key: str, labels: Sequence[str], other: str = "", merge: bool = False
) -> str:
    """Write an edit of each label to data/labels.yaml; comments are kept.

    Args:
        root: Root of the project.
        key: rename | imply | drop | absent.
        labels: Existing labels.
        other: New name, or implied label.
        merge: Whether the new name may be that of a label.

    Returns:
        A description of the changes.

    Raises:
        InputError: The edit is invalid. The file is then not changed.
    """
    path = root / EDITS
    with report_failed_write(path):
        path.parent.mkdir(exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
    with lock:
        before = read_state(root, read_edits(path))
        text = decode_text(path.read_bytes(), str(EDITS)) if path.exists() else ""
        groups = load_values(text.encode())
        # ruamel.yaml does not keep the comments of a file that contains only comments.
        header = f"{text.rstrip()}\n\n" if text.strip() and groups is None else ""
        groups = CommentedMap() if groups is None else groups
        names = [_find_label(before, label) for label in labels]
        name = normalize(other).strip()
        if name in before.edited.sources:
            _find_label(before, name)
            if key == "rename" and not merge:
                raise InputError(
                    f"the label {name!r} exists: to merge labels, run `phototag label merge` with "
                    "the same arguments"
                )
        names = [label for label in names if label != name]  # the label with which others merge
        for label in names:
            _add_edit(groups, key, label, name)
        stream = io.StringIO()
        make_yaml().dump(groups, stream)
        changed = header + stream.getvalue()
        after = read_state(root, parse_edits(changed.encode()))
        if after.edited.edits == before.edited.edits:
            return f"Nothing to change: {EDITS} already contains this edit."
        write_text(path, changed)
    edits = [f"{EDITS}: {key} {label}{name and f': {name}'}" for label in names]
    undo = "To undo an edit, remove its line. Next: dvc repro"
    return "\n".join([*edits, *_compare_counts(before, after), undo])


def _find_label(state: LabelState, label: str) -> str:
    """Return the name of an existing label in composed Unicode (NFC)."""
    name = normalize(label).strip()
    if name not in state.counts:
        raise InputError(
            f"the dataset has no label {name!r}{suggest(name, state.counts)}: `phototag label` "
            "lists the labels and the edits, which may have renamed or dropped it"
        )
    return name


def _add_edit(groups: CommentedMap, key: str, label: str, other: str) -> None:
    """Add an edit to the content of data/labels.yaml."""
    if groups.get(key) in (None, ""):
        groups[key] = CommentedMap() if key in ("rename", "imply") else _make_list()
    if key == "rename":
        groups[key][label] = other
        return
    names = groups[key].setdefault(label, _make_list()) if key == "imply" else groups[key]
    name = other if key == "imply" else label
    if name not in names:
        names.append(name)


def _make_list() -> CommentedSeq:
    names = CommentedSeq()
    names.fa.set_flow_style()
    return names


def _compare_counts(before: LabelState, after: LabelState) -> list[str]:
    """Return a line for each label whose numbers of photos differ, and hints about new labels."""
    lines, hints = [], []
    for label in sorted(before.counts.keys() | after.counts.keys()):
        old, new = before.counts.get(label, {}), after.counts.get(label, {})
        if old != new:
            texts = [
                ", ".join(f"{n} {word}" for word, n in counts.items()) for counts in (old, new)
            ]
            lines.append(f"{label}: {texts[0] or 'no label'} -> {texts[1] or 'no label'}")
        if new and not old and not new["no"] and new["unknown"]:
            hints.append(
                f"{label} is unknown on {new['unknown']} photos: if these photos lack it, run "
                f"`phototag label absent {shlex.quote(label)}`"
            )
    return [*(lines or ["No photo gets other labels."]), *hints]
