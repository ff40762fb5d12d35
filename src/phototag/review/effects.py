"""Changes in labels, photos and scores after training with the answers of a review."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from phototag.apps.results import CORRECTIONS, LOCK, Stages, list_hashes, parse_lock, read_lock
from phototag.base.errors import InputError
from phototag.base.files import read_json
from phototag.base.git import ask_git, run_git
from phototag.base.params import read_values
from phototag.dataset.manifest import SPLITS as SPLIT_NAMES
from phototag.metrics.selection import name_photos
from phototag.pages.escaping import escape_spreadsheet_cell
from phototag.registry.predictions import (
    PREDICTIONS,
    SPLITS,
    compare_predictions,
    parse_predictions,
)
from phototag.verification.corrections import ANSWERS, drop_undone, parse_answers
from phototag.verification.label_edits import EDITS

MANIFEST, SUMMARY = "data/manifest.csv", "reports/resize/summary.json"
COMPARED = {"f1_micro": "micro F1", "f1_macro": "macro F1", "mAP_macro": "mAP"}
Read = Callable[[str], bytes | None]
# SHA-256 of a photo -> its split, and the table returned by `parse_predictions`. Its column `image`
# contains the SHA-256 of the photo, because photos can be renamed.
Evaluation = tuple[dict[str, str], pd.DataFrame]


def describe_effect(root: Path, revision: str, read: Read) -> str:
    """Describe the changes in labels, photos and scores since a git revision.

    Args:
        root: Root folder of a project in which `dvc repro` has run.
        revision: Git revision that contains the earlier answers and scores.
        read: Function that returns the content of a file at the revision, or None if neither git
            nor DVC's cache has it.

    Raises:
        InputError: The results of an evaluation are missing, or photos, labels or answers have
            changed since the last `dvc repro`.
    """
    run_git(root, "rev-parse", "--git-dir")  # raises an error outside git
    old_lock, old_rows = (
        ask_git(root, "show", "--end-of-options", f"{revision}:./{name}")
        for name in (LOCK, CORRECTIONS)
    )
    if not old_lock:
        raise InputError(f"{revision} is not a commit with {LOCK}: pass another one")
    old_stages, stages = parse_lock(old_lock, f"{revision}:{LOCK}"), read_lock(root)
    values, rows = read_values(root / "params.yaml"), _read_local(root, CORRECTIONS) or b""
    old = parse_answers((old_rows or "").encode(), f"{revision}:{CORRECTIONS}").values()
    new = parse_answers(rows, str(root / CORRECTIONS)).values()
    if not _is_current(root, stages, values["data"]["raw"]):
        raise InputError(
            "the model was not trained with the latest photos, labels and answers: run `dvc repro`"
        )
    given = {answer.entry: answer.old for answer in reversed(new)}
    labels, old_labels = (
        given | {answer.entry: answer.answer for answer in drop_undone(answers)}
        for answers in (new, old)
    )
    changed = Counter(labels[entry] for entry in given if labels[entry] != old_labels[entry])
    counts = ", ".join(f"{changed[answer]} to {answer}" for answer in ANSWERS)
    lines = [f"Labels changed since {revision}: {changed.total()} ({counts})."]
    past, old_predictions = _read_evaluated(
        read, f"of {revision} is neither in git nor in DVC's cache: pass another revision"
    )
    present, predictions = _read_evaluated(
        partial(_read_local, root), "is missing: run `dvc repro`"
    )
    renamed = read_json(root / SUMMARY).get("renamed_labels", {})
    old_predictions = old_predictions.replace({"label": renamed})
    lines.append(_compare_photos(past, present))
    resamples, seed = values["evaluate"]["resamples"], values["seed"]
    lines.append(_compare_scores(old_predictions, predictions, resamples, seed))
    inputs = _list_inputs(stages) ^ _list_inputs(old_stages)
    others = sorted({name for name, _ in inputs} - {CORRECTIONS})
    if others:
        lines.append(
            f"These inputs changed too and may explain the difference: {', '.join(others)}."
        )
    return "\n".join(lines)


def _is_current(root: Path, stages: Stages, photos: str) -> bool:
    """Return whether `dvc repro` has finished since photos, labels and answers have changed."""
    deps = list_hashes(stages["resize"], "deps")
    for name in (CORRECTIONS, str(EDITS)):
        if deps.get(name) != hashlib.md5(_read_local(root, name) or b"").hexdigest():
            return False
    tracked = root / f"{Path(photos)}.dvc"  # missing if `dvc add` did not add the photos
    if tracked.is_file():
        added = list_hashes(read_values(tracked), "outs").values()
        if deps.get(str(Path(photos))) not in added:
            return False
    written, used = list_hashes(stages["resize"], "outs"), list_hashes(stages["evaluate"], "deps")
    return written.get(MANIFEST) == used.get(MANIFEST)


def _read_evaluated(read: Read, missing: str) -> Evaluation:
    """Read the photos and predictions of an evaluation.

    Args:
        read: Function that returns the content of a file, or None if the file is missing.
        missing: End of the error message if a file is missing.
    """
    contents = {name: read(name) for name in (MANIFEST, SPLITS, PREDICTIONS)}
    for name, content in contents.items():
        if content is None:
            raise InputError(f"{name} {missing}")
    manifest, splits = (
        pd.read_csv(io.BytesIO(contents[name] or b""), keep_default_na=False, dtype=str)
        for name in (MANIFEST, SPLITS)
    )
    hashes = dict(zip(manifest["file"], manifest["sha256"], strict=True))
    escaped = {escape_spreadsheet_cell(file): sha256 for file, sha256 in hashes.items()}
    rows = parse_predictions(contents[PREDICTIONS] or b"", contents[SPLITS] or b"")
    rows = rows.assign(image=rows["image"].map(escaped)).drop_duplicates(["image", "label"])
    return dict(zip(splits["image"].map(hashes), splits["split"], strict=True)), rows


def _read_local(root: Path, name: str) -> bytes | None:
    return (root / name).read_bytes() if (root / name).is_file() else None


def _compare_photos(old: dict[str, str], new: dict[str, str]) -> str:
    moved = sum(new[sha256] != split for sha256, split in old.items() if sha256 in new)
    counts = [Counter(splits.values()) for splits in (old, new)]
    sizes = ", ".join(f"{name} {counts[0][name]} -> {counts[1][name]}" for name in SPLIT_NAMES)
    return (
        f"Photos: {len(new.keys() - old)} added, {len(old.keys() - new)} removed, {moved} moved to "
        f"another split ({sizes})."
    )


def _compare_scores(old: pd.DataFrame, new: pd.DataFrame, resamples: int, seed: int) -> str:
    table = compare_predictions(new, old, resamples, seed)
    if table.empty:
        return "Scores: the evaluations share no labelled photo, so they are not comparable."
    rows = table.set_index("metric").T.to_dict()
    differences = []
    for metric, name in COMPARED.items():
        row = rows[metric]
        interval = f"95% interval {row['low']:+z.3f} to {row['high']:+z.3f}"
        if np.isnan(row["low"]):
            interval = "too few groups of photos for an interval"
        difference = f"{row['difference']:+z.3f}, {interval}"
        differences.append(f"{name} {row['old']:.3f} -> {row['new']:.3f} ({difference})")
    split = new["split"].iloc[0]
    photos = name_photos(table.attrs["photos"], split)
    return (
        f"Scores on the {photos} and {table.attrs['labels']} labels that both evaluations share, "
        f"with the present labels of the photos: {', '.join(differences)}."
    )


def _list_inputs(stages: Stages) -> set[tuple[str, str]]:
    """Return the dependencies of `resize` with their hashes, and all params with their values."""
    inputs = set(list_hashes(stages["resize"], "deps").items())
    for stage in stages.values():
        used = stage.get("params", {}).get("params.yaml", {})
        inputs |= {(key, repr(value)) for key, value in used.items()}
    return inputs
