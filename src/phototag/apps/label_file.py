"""Edits of data/labels.yaml, which keep its comments."""

import difflib
import io
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from phototag.apps.label_counts import EDITS, LabelState, compare_counts, read_state
from phototag.base.errors import InputError
from phototag.base.files import report_failed_write, write_text
from phototag.verification.label_edits import load_values, make_yaml, parse_edits
from phototag.verification.labels import check_label, normalize, suggest
from phototag.verification.listing import decode_text

MARKS = ("---", "+++", "@@")  # start of lines of a diff that are not lines of the file


class LabelFile:
    """The content of data/labels.yaml with its comments, and changes of it in memory.

    Attributes:
        groups: Content of the file.
        wanted: Labels in `data.labels` after the changes.
    """

    def __init__(self, text: str, wanted: Sequence[str]) -> None:
        groups = load_values(text.encode(), EDITS)
        # ruamel.yaml does not keep the comments of a file that contains only comments.
        self.header = text if groups is None else ""
        self.groups = CommentedMap() if groups is None else groups
        self.wanted = list(wanted)

    def rename(self, old: str, new: str) -> None:
        """Rename a label, also in the other edits and in `data.labels`."""
        self._open("rename", CommentedMap())[old] = new
        imply = self.groups.get("imply") or {}
        for names in (*imply.values(), self.groups.get("absent") or [], self.wanted):
            _replace(names, old, new)
        for parent in imply.pop(old, []):
            self.imply(new, parent)
        if new in imply.get(new, []):  # the label is merged with one that it implies
            imply[new].remove(new)
        for key in [key for key, parents in imply.items() if not parents]:
            del imply[key]
        if not imply:
            self.groups.pop("imply", None)

    def imply(self, child: str, parent: str) -> None:
        """Add an implication."""
        parents = self._open("imply", CommentedMap()).setdefault(child, _make_list())
        if parent not in parents:
            parents.append(parent)

    def add(self, key: str, label: str) -> None:
        """Add a label to the list `drop` or `absent`."""
        names = self._open(key, _make_list())
        if label not in names:
            names.append(label)

    def render(self) -> str:
        """Return the text of the file."""
        stream = io.StringIO()
        make_yaml().dump(self.groups, stream)
        header = self.header.rstrip("\n")
        return f"{header}\n\n{stream.getvalue()}" if header else stream.getvalue()

    def _open(self, key: str, empty: Any) -> Any:
        """Return the group with this key; add it if it does not exist or has no value."""
        if self.groups.get(key) in (None, ""):
            self.groups[key] = empty
        return self.groups[key]


def _make_list() -> CommentedSeq:
    names = CommentedSeq()
    names.fa.set_flow_style()
    return names


def _replace(names: list[str], old: str, new: str) -> None:
    """Replace a name in a list, in place, or remove it if the list has the new name already."""
    if old in names:
        if new in names:
            names.remove(old)
        else:
            names[names.index(old)] = new


Outcome = tuple[str, list[str]]  # description of the changes, and new value of `data.labels`


def rename_label(root: Path, old: str, new: str) -> Outcome:
    """Rename a label.

    Raises:
        InputError: The label does not exist, or the new name is invalid or taken.
    """

    def change(file: LabelFile, state: LabelState) -> None:
        label, name = require_label(state, old), require_free(state, new)
        if name in state.counts:
            raise InputError(
                f"the label {name!r} exists: to merge {label!r} into it, run `phototag label merge`"
                " with the same arguments"
            )
        file.rename(label, name)

    return change_file(root, change)


def merge_labels(root: Path, olds: Sequence[str], new: str) -> Outcome:
    """Merge labels into one label, whose name may be new or that of a label.

    Raises:
        InputError: A label does not exist, or there is nothing to merge.
    """

    def change(file: LabelFile, state: LabelState) -> None:
        name = require_free(state, new)
        labels = dict.fromkeys(require_label(state, old) for old in olds)
        if len({*labels, name} & state.counts.keys()) < 2:
            raise InputError(
                f"nothing to merge: {name!r} is a new label: pass two or more labels before it, or "
                "run `phototag label rename`"
            )
        for label in labels:
            if label != name:
                if not state.edited.sources[label]:
                    raise InputError(
                        f"no label file lists {label!r}, so that it cannot be merged: edit `imply` "
                        f"in {EDITS}"
                    )
                file.rename(label, name)

    return change_file(root, change)


def drop_label(root: Path, label: str) -> Outcome:
    """Drop a label.

    Raises:
        InputError: The label does not exist, is implied or implies others, or is the last one.
    """

    def change(file: LabelFile, state: LabelState) -> None:
        name = require_label(state, label)
        if name in state.edited.edits.imply or name in state.edited.edits.parents:
            raise InputError(f"{EDITS}: `imply` names {name!r}: remove it there first")
        file.add("drop", name)
        if file.wanted == [name]:
            raise InputError(f"data.labels lists only {name!r}: add other labels to it first")
        file.wanted = [each for each in file.wanted if each != name]

    return change_file(root, change)


def imply_label(root: Path, child: str, parent: str) -> Outcome:
    """State that each photo with the label `child` has the label `parent`, which may be new.

    Raises:
        InputError: The label does not exist, or the implications form a circle.
    """

    def change(file: LabelFile, state: LabelState) -> None:
        file.imply(require_label(state, child), require_free(state, parent))

    return change_file(root, change)


def mark_absent(root: Path, label: str) -> Outcome:
    """State that photos of imports that do not list a label lack it.

    Raises:
        InputError: The label does not exist.
    """

    def change(file: LabelFile, state: LabelState) -> None:
        file.add("absent", require_label(state, label))

    return change_file(root, change)


def require_label(state: LabelState, label: str) -> str:
    """Return the name of an existing label in composed Unicode (NFC).

    Raises:
        InputError: The label was renamed or dropped, or the dataset does not have it.
    """
    name = require_unedited(state, normalize(label).strip())
    if name not in state.counts:
        raise InputError(
            f"the dataset has no label {name!r}{suggest(name, state.counts)}: `phototag label` "
            "lists the labels"
        )
    return name


def require_free(state: LabelState, label: str) -> str:
    """Return a valid name of a new or existing label in composed Unicode (NFC).

    Raises:
        InputError: The name is invalid, or a label of this name was renamed or dropped.
    """
    return require_unedited(state, check_label(label, "the new name"))


def require_unedited(state: LabelState, label: str) -> str:
    """Return a name; raise an InputError if an edit has renamed or dropped the label."""
    edits = state.edited.edits
    if label in edits.rename:
        raise InputError(
            f"{EDITS} renames {label!r} to {edits.rename[label]!r}: pass this name, or remove the "
            "line to undo the edit"
        )
    if label in edits.drop:
        raise InputError(f"{EDITS} drops {label!r}: remove the line to undo the edit")
    return label


def change_file(root: Path, change: Callable[[LabelFile, LabelState], None]) -> Outcome:
    """Change data/labels.yaml; comments are kept.

    Args:
        root: Root of the project.
        change: Function that changes the content of the file.

    Returns:
        A description of the changes, or "" if there are none; and the labels that `data.labels`
        must list after the change.

    Raises:
        InputError: The change is invalid. The file is then not changed.
    """
    path = root / EDITS
    with report_failed_write(path):
        path.parent.mkdir(exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
    with lock:
        before = read_state(root)
        text = decode_text(path.read_bytes(), EDITS) if path.exists() else ""
        file = LabelFile(text, before.edited.wanted)
        change(file, before)
        changed = file.render()
        edits = parse_edits(changed.encode(), EDITS)
        if edits == before.edited.edits:
            return "", file.wanted
        after = read_state(root, edits, file.wanted)
        write_text(path, changed)
    lines = difflib.unified_diff(text.splitlines(), changed.splitlines(), EDITS, EDITS, n=0)
    shown = [line for line in lines if line.strip("+-") and not line.startswith(MARKS)]
    changes = compare_counts(before, after) or ["No photo gets other labels."]
    changes += _list_hints(before, after)
    return "\n".join([f"{EDITS}:", *shown, "", *changes]), file.wanted


def _list_hints(before: LabelState, after: LabelState) -> list[str]:
    """Return hints about labels that did not exist before because they are only implied."""
    hints = []
    for label in sorted((after.counts.keys() - before.counts.keys()) & after.edited.edits.parents):
        counts = after.counts[label]
        if counts.unknown and not counts.no:
            hints.append(
                f"{label} is unknown on {counts.unknown} photos, because no label file lists it: "
                f"if these photos lack it, run `phototag label absent {shlex.quote(label)}`"
            )
        if after.edited.wanted and label not in after.edited.wanted:
            hints.append(f"{label} is learned only if data.labels in params.yaml lists it")
    return hints
