"""Report on a dataset: counts, problems, remarks on photos, and duplicates."""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from phototag.base.files import replace_file, write_json
from phototag.dataset.manifest import escape_name, keep, label_names, label_targets
from phototag.dataset.targets import UNKNOWN, all_known, is_known
from phototag.decoding.system_files import describe_system_files
from phototag.pages.escaping import escape_spreadsheet_cells
from phototag.pages.figures import (
    BLUE,
    ORANGE,
    Figure,
    data_uri,
    figure_style,
    new_figure,
    save_figure,
)
from phototag.pages.html import write_page
from phototag.verification.corrections import Change
from phototag.verification.problems import Problem

DECISIONS = ("rejected", "converted", "kept")  # in the order of the page
TILES = 12  # maximum number of photos shown per kind of remark and per duplicate group
GROUPS = 40  # maximum number of duplicate groups shown
LINES = 50  # maximum number of problems of label files shown


def list_rejected(manifest: pd.DataFrame) -> list[Problem]:
    """Return a problem for each rejected photo."""
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
    system_files: Sequence[str] = (),
    changes: Sequence[Change] = (),
) -> None:
    """Write summary.json, problems.csv, duplicates.csv, sizes.png and report.html.

    Args:
        folder: Folder of the report.
        manifest: Manifest of all source files, with the duplicate groups.
        problems: Problems of photos and label files.
        images: Photos that are not rejected, uint8 [num_images, size, size, 3].
        system_files: System files, which were ignored.
        changes: Targets that answers in the corrections file changed.
    """
    duplicates = tabulate_duplicates(manifest)
    summary = summarize(manifest, problems, duplicates) | {"system_files": len(system_files)}
    if changes:
        summary["corrected"] = _count(change.label for change in changes)
    write_json(folder / "summary.json", summary)
    rows = [asdict(problem) | {"file": escape_name(problem.file)} for problem in problems]
    columns = list(Problem.__dataclass_fields__)
    _write_csv(folder / "problems.csv", pd.DataFrame(rows, columns=columns))
    _write_csv(folder / "duplicates.csv", duplicates)
    with figure_style():
        sizes = save_figure(draw_sizes(manifest), folder / "sizes.png")

    row_of = {file: row for row, file in enumerate(keep(manifest)["file"])}

    def show(file: str, lines: list[str]) -> dict[str, Any]:
        """Return a tile of the page: thumbnail (empty if rejected), file name and text lines."""
        image = _thumbnail(images[row_of[file]]) if file in row_of else ""
        return {"file": file.rpartition("/")[2], "lines": lines, "image": image}

    label_problems = [problem for problem in problems if _concerns_labels(problem)]
    unknown = {label: count for label, count in summary.get("unknown", {}).items() if count}
    tables = {
        "decision": summary["decisions"],
        "remark": summary["reasons"],
        "format": summary["formats"],
        "mode": summary["modes"],
        "label": summary["labels"],
        "unknown label": unknown,
        "corrected label": summary.get("corrected", {}),
        "problem of label files": summary["label_problems"],
    }
    write_page(
        folder / "report.html",
        "phototag.verification",
        "report.html.j2",
        title="Dataset verification",
        headline=[*_headline(summary), *describe_system_files(system_files)],
        tables={name: counts for name, counts in tables.items() if counts},
        sizes=sizes,
        problems=label_problems[:LINES],
        more_problems=max(len(label_problems) - LINES, 0),
        remarks=_show_remarks(manifest, show),
        groups=_show_duplicates(duplicates, show),
        more_groups=max(summary["duplicate_groups"] - GROUPS, 0),
    )


def summarize(
    manifest: pd.DataFrame, problems: Sequence[Problem], duplicates: pd.DataFrame
) -> dict[str, Any]:
    """Count files, labels, problems and duplicates.

    Args:
        manifest: Manifest of all source files.
        problems: Problems of photos and label files.
        duplicates: Table returned by `tabulate_duplicates`.

    Returns:
        The content of summary.json. Labels are counted on the photos that are not rejected:
        `labels` counts the photos that carry each label, `unlabelled` those that carry none, and
        `unknown`, which is missing if all targets are known, those of which a label is unknown.
    """
    kept = keep(manifest)
    labels, targets = label_names(manifest), label_targets(kept)
    unknown = dict(zip(labels, (~is_known(targets)).sum(axis=0).tolist(), strict=True))
    remarks = [remark for reason in manifest["reason"] for remark in reason.split("; ") if remark]
    shorter = kept[["width", "height"]].min(axis=1)
    return {
        "files": len(manifest),
        "decisions": _count(manifest["decision"]),
        "reasons": _count(_split_remark(remark)[0] for remark in remarks),
        "formats": _count(kept["format"]),
        "modes": _count(kept["mode"]),
        "labels": dict(zip(labels, (targets > 0).sum(axis=0).tolist(), strict=True)),
        "unlabelled": int((targets == 0).all(axis=1).sum()),
        **({} if all_known(targets) else {"unknown": unknown}),
        "shorter_side": {name: int(getattr(shorter, name)()) for name in ("min", "median", "max")},
        "label_problems": _count(problem.kind for problem in problems if _concerns_labels(problem)),
        "duplicate_groups": int(duplicates["group"].nunique()),
        "duplicate_photos": len(duplicates),
        "conflicting_groups": int(
            duplicates.loc[duplicates["conflicting_labels"] != "", "group"].nunique()
        ),
    }


def tabulate_duplicates(manifest: pd.DataFrame) -> pd.DataFrame:
    """List the photos that have duplicates.

    Returns:
        Columns group; file; kind (exact if all files of the group have the same bytes, else near);
        labels (an unknown one as `?label`); conflicting_labels (labels that some photos of the
        group carry and others do not). Labels are separated by semicolons.
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


def draw_sizes(manifest: pd.DataFrame) -> Figure:
    """Draw histograms of the shorter and longer sides of all photos that could be read."""
    sides = manifest.loc[manifest["width"] > 0, ["width", "height"]].to_numpy()
    figure, axes = new_figure("Sizes of the source photos", "pixels", "photos")
    # The margins give photos of a single size a bar instead of an empty range.
    bins = np.linspace(sides.min() * 0.9, sides.max() * 1.1, 40).tolist()
    for values, colour, name in (
        (sides.min(axis=1), BLUE, "shorter side"),
        (sides.max(axis=1), ORANGE, "longer side"),
    ):
        axes.hist(values, bins=bins, histtype="step", linewidth=1.6, color=colour, label=name)
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def _headline(summary: dict[str, Any]) -> list[str]:
    decisions = summary["decisions"]
    counts = ", ".join(f"{decisions.get(name, 0)} {name}" for name in reversed(DECISIONS))
    sentences = [
        f"Files: {summary['files']} ({counts}).",
        f"Groups of duplicates: {summary['duplicate_groups']} ({summary['duplicate_photos']} "
        f"photos, different labels in {summary['conflicting_groups']} groups).",
        f"Problems of label files: {sum(summary['label_problems'].values())}. Photos without "
        f"labels: {summary['unlabelled']}.",
    ]
    if "unknown" in summary:
        num_photos = summary["files"] - decisions.get("rejected", 0)
        sentences.append(
            f"Unknown targets: {sum(summary['unknown'].values())} of "
            f"{num_photos * len(summary['labels'])} (one per photo and label). Training and "
            "evaluation ignore them."
        )
    if "corrected" in summary:
        number = sum(summary["corrected"].values())
        sentences.append(f"Targets changed by data/corrections.csv: {number}.")
    return sentences


def _show_remarks(
    manifest: pd.DataFrame, show: Callable[[str, list[str]], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the first photos of each kind of remark, rejections first."""
    found: dict[tuple[int, str], list[tuple[str, list[str]]]] = {}
    for row in manifest[manifest["reason"] != ""].to_dict("records"):
        size = f"{row['width']} x {row['height']}" if row["width"] else ""
        for remark in row["reason"].split("; "):
            kind, detail = _split_remark(remark)
            key = (DECISIONS.index(row["decision"]), kind)
            found.setdefault(key, []).append((row["file"], [size, detail]))
    return [
        {
            "kind": kind,
            "decision": DECISIONS[rank],
            "count": len(photos),
            "more": max(len(photos) - TILES, 0),
            "tiles": [show(file, lines) for file, lines in photos[:TILES]],
        }
        for (rank, kind), photos in sorted(found.items())
    ]


def _show_duplicates(
    duplicates: pd.DataFrame, show: Callable[[str, list[str]], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the first duplicate groups, those with conflicting labels first."""
    groups = [group.to_dict("records") for _, group in duplicates.groupby("group", sort=True)]
    groups.sort(key=lambda rows: str(rows[0]["conflicting_labels"]) == "")
    return [
        {
            "title": f"{len(rows)} photos, {rows[0]['kind']}",
            "conflicting_labels": rows[0]["conflicting_labels"].replace(";", ", "),
            "tiles": [
                show(row["file"], [row["labels"].replace(";", ", ") or "no label"])
                for row in rows[:TILES]
            ],
        }
        for rows in groups[:GROUPS]
    ]


def _thumbnail(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return data_uri(buffer.getvalue(), "image/jpeg")


def _concerns_labels(problem: Problem) -> bool:
    return problem.action == "noted" or problem.line > 0


def _split_remark(remark: str) -> tuple[str, str]:
    kind, _, detail = remark.partition(": ")
    return kind, detail


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    with replace_file(path) as temporary:
        escape_spreadsheet_cells(table).to_csv(temporary, index=False, lineterminator="\n")
