"""Write the report on a dataset: counts, problems, remarks on photos, and duplicates."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from phototag.base.errors import escape_control
from phototag.base.files import write_json, write_table
from phototag.dataset.manifest import keep, label_names, label_targets
from phototag.dataset.targets import UNKNOWN, is_known
from phototag.decoding.system_files import describe_system_files
from phototag.pages.escaping import escape_spreadsheet_cells
from phototag.pages.html import jpeg_uri, write_page
from phototag.verification.problems import Problem

DECISIONS = ("rejected", "converted", "kept")  # in the order in which the page lists them


def list_rejected(manifest: pd.DataFrame) -> list[Problem]:
    """Return one problem for each rejected photo."""
    rejected = manifest[manifest["decision"] == "rejected"]
    return [
        Problem(file, 0, *_split_remark(reason), "rejected")
        for file, reason in zip(rejected["file"], rejected["reason"], strict=True)
    ]


def write_verification_report(
    folder: Path,
    manifest: pd.DataFrame,
    problems: Sequence[Problem],
    images: np.ndarray,
    size: int,
    system_files: Sequence[str] = (),
    edits: Mapping[str, int] | None = None,
    renamed: Mapping[str, str] | None = None,
) -> None:
    """Write summary.json, problems.csv, duplicates.csv and report.html to a folder.

    `images` are the photos that are not rejected, uint8 [num_images, side, side, 3]. `size` is the
    side of the photos that the network processes, in pixels. `system_files` are the files that were
    ignored. `edits` maps each edit of labels to the number of photos whose labels it changed.
    `renamed` maps the old names of labels to the new names.
    """
    duplicates = tabulate_duplicates(manifest)
    summary = summarize(manifest, problems, duplicates)
    summary |= {"label_edits": dict(edits or {}), "renamed_labels": dict(renamed or {})}
    summary |= {"system_files": len(system_files), "packed_side": images.shape[1]}
    write_json(folder / "summary.json", summary)
    # PyArrow, which pandas uses for text, refuses names that are not UTF-8.
    columns = list(Problem.__dataclass_fields__)
    listed = pd.DataFrame(list(problems), columns=columns, dtype=object)
    listed["file"] = listed["file"].map(escape_control)
    write_table(folder / "problems.csv", escape_spreadsheet_cells(listed))
    write_table(folder / "duplicates.csv", escape_spreadsheet_cells(duplicates))

    row_of = {file: row for row, file in enumerate(keep(manifest)["file"])}

    def encode_photo(file: str) -> str:
        return jpeg_uri(Image.fromarray(images[row_of[file]]))

    # Groups of duplicates whose labels differ come first.
    agree = duplicates["conflicting_labels"] == ""
    groups = [group.to_dict("records") for _, group in duplicates.groupby([agree, "group"])]
    tables = {
        "import": summary["imports"],
        "decision": summary["decisions"],
        "remark": summary["reasons"],
        "label": summary["labels"],
        "unknown label": summary["unknown"],
        "edit of labels": summary["label_edits"],
        "problem in label files": summary["label_problems"],
    }
    write_page(
        folder / "report.html",
        "phototag.verification",
        "report.html.j2",
        title="Dataset verification",
        headline=[*_headline(summary, size), *describe_system_files(system_files)],
        tables={name: counts for name, counts in tables.items() if counts},
        problems=[problem for problem in problems if _concerns_labels(problem)],
        remarks=_group_remarks(manifest),
        groups=groups,
        encode_photo=encode_photo,
    )


def summarize(
    manifest: pd.DataFrame, problems: Sequence[Problem], duplicates: pd.DataFrame
) -> dict[str, Any]:
    """Count the files, labels, problems and duplicates of a dataset.

    Returns:
        The content of summary.json. Rejected photos are not counted in `labels` (number of photos
        that carry each label), `unlabelled` (number of photos that carry no label) and `unknown`
        (number of photos whose target is unknown, for each label that has such photos).
    """
    kept = keep(manifest)
    labels, targets = label_names(manifest), label_targets(kept)
    num_unknown = (~is_known(targets)).sum(axis=0).tolist()
    remarks = [remark for reason in manifest["reason"] for remark in reason.split("; ") if remark]
    shorter = kept[["width", "height"]].min(axis=1)
    return {
        "files": len(manifest),
        "imports": dict(Counter(filter(None, manifest["import"]))),
        "decisions": _count(manifest["decision"]),
        "reasons": _count(_split_remark(remark)[0] for remark in remarks),
        "labels": dict(zip(labels, (targets > 0).sum(axis=0).tolist(), strict=True)),
        "unlabelled": int((targets == 0).all(axis=1).sum()),
        "unknown": {name: num for name, num in zip(labels, num_unknown, strict=True) if num},
        "shorter_side": {name: int(getattr(shorter, name)()) for name in ("min", "median", "max")},
        "label_problems": _count(problem.kind for problem in problems if _concerns_labels(problem)),
        "duplicate_groups": int(duplicates["group"].nunique()),
        "duplicate_photos": len(duplicates),
        "conflicting_groups": int(
            duplicates.loc[duplicates["conflicting_labels"] != "", "group"].nunique()
        ),
    }


def tabulate_duplicates(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return a table of the photos that have duplicates.

    Returns:
        A table with the columns group; file; kind (exact if all files of the group have the same
        bytes, else near); labels (`?` precedes unknown labels); and conflicting_labels (labels
        that only some photos of the group carry). Labels are separated by semicolons.
    """
    labels = label_names(manifest)
    rows: list[list[str]] = []
    found = manifest[manifest["duplicate_group"] != ""]
    for name, group in found.groupby("duplicate_group", sort=True):
        conflicting = [label for label in labels if {0, 1} <= set(group[label])]
        kind = "exact" if group["sha256"].nunique() == 1 else "near"
        for row in group.to_dict("records"):
            carried = [label for label in labels if row[label] == 1]
            carried += [f"?{label}" for label in labels if row[label] == UNKNOWN]
            rows.append([str(name), row["file"], kind, ";".join(carried), ";".join(conflicting)])
    columns = ["group", "file", "kind", "labels", "conflicting_labels"]
    return pd.DataFrame(rows, columns=columns, dtype=str)


def _headline(summary: dict[str, Any], size: int) -> list[str]:
    decisions, shorter = summary["decisions"], summary["shorter_side"]
    counts = ", ".join(f"{decisions.get(name, 0)} {name}" for name in reversed(DECISIONS))
    sentences = [
        f"Files: {summary['files']} ({counts}). Shorter side in pixels: {shorter['min']} to "
        f"{shorter['max']}, median {shorter['median']}.",
        f"Groups of duplicates: {summary['duplicate_groups']} ({summary['duplicate_photos']} "
        f"photos; labels differ in {summary['conflicting_groups']} groups).",
        f"Problems in label files: {sum(summary['label_problems'].values())}. Photos without "
        f"labels: {summary['unlabelled']}.",
    ]
    side = summary["packed_side"]
    if side < size:
        sentences.append(
            f"The shorter side of each photo is less than {size} pixels (resize.size). The photos "
            f"are packed as {side} x {side} pixels, and the network enlarges them."
        )
    if summary["unknown"]:
        num_photos = summary["files"] - decisions.get("rejected", 0)
        sentences.append(
            f"Unknown targets: {sum(summary['unknown'].values())} of "
            f"{num_photos * len(summary['labels'])} targets, one per photo and label. Training "
            "and evaluation ignore unknown targets."
        )
    return sentences


def _group_remarks(manifest: pd.DataFrame) -> list[tuple[str, str, list[dict[str, str]]]]:
    """Return (decision, kind, photos) for each kind of remark; rejections come first."""
    found: dict[tuple[int, str], list[dict[str, str]]] = {}
    for row in manifest[manifest["reason"] != ""].to_dict("records"):
        size = f"{row['width']} x {row['height']}" if row["width"] else ""
        for remark in row["reason"].split("; "):
            kind, detail = _split_remark(remark)
            photo = {"file": row["file"], "size": size, "detail": detail}
            found.setdefault((DECISIONS.index(row["decision"]), kind), []).append(photo)
    return [(DECISIONS[rank], kind, photos) for (rank, kind), photos in sorted(found.items())]


def _concerns_labels(problem: Problem) -> bool:
    return problem.action == "noted" or problem.line > 0


def _split_remark(remark: str) -> tuple[str, str]:
    kind, _, detail = remark.partition(": ")
    return kind, detail


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(sorted(values)).most_common())
