"""The report on a data set: what came in, what did not and why, and what is there twice."""

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
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
from phototag.verification.corrections import ANSWERS, Change
from phototag.verification.problems import Problem

TILES = 12  # photos shown of each kind
GROUPS = 40  # duplicate groups shown
LINES = 50  # problems of label files shown


def list_rejected(manifest: pd.DataFrame) -> list[Problem]:
    """Return each rejected photo as a problem."""
    rejected = manifest[manifest["decision"] == "rejected"]
    return [
        Problem(file, 0, *_split_reason(reason), "rejected")
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
        folder: Where they go.
        manifest: Of all source files, with the duplicate groups.
        problems: Of photos and label files.
        images: uint8 [num_images, size, size, 3], of the photos that were not rejected.
        system_files: Files of systems and tools, which were passed over; they are counted apart.
        changes: Entries that people corrected.
    """
    duplicates = tabulate_duplicates(manifest)
    summary = summarize(manifest, problems, duplicates) | {"system_files": len(system_files)}
    if changes:
        summary["corrected"] = _count(change.label for change in changes)
    write_json(folder / "summary.json", summary)
    columns = ["file", "line", "kind", "detail", "action"]
    problems = [replace(problem, file=escape_name(problem.file)) for problem in problems]
    rows = [[getattr(problem, column) for column in columns] for problem in problems]
    _write_csv(folder / "problems.csv", pd.DataFrame(rows, columns=columns))
    _write_csv(folder / "duplicates.csv", duplicates)
    with figure_style():
        sizes = save_figure(draw_sizes(manifest), folder / "sizes.png")

    about_labels = [problem for problem in problems if problem.action == "noted" or problem.line]
    kept = keep(manifest)
    row_of = {file: row for row, file in enumerate(kept["file"])}
    groups = _show_groups(kept, duplicates, images)
    unknown = {label: count for label, count in summary.get("unknown", {}).items() if count}
    tables = {
        "decision": summary["decisions"],
        "remark": summary["reasons"],
        "format": summary["formats"],
        "mode": summary["modes"],
        "label": summary["labels"],
        "label that is not known": unknown,
        "corrected label": summary.get("corrected", {}),
        "problem in label files": summary["label_problems"],
    }
    write_page(
        folder / "report.html",
        "phototag.verification",
        "report.html.j2",
        title="What came in?",
        headline=[
            *_headline(summary),
            *_describe_changes(changes),
            *describe_system_files(system_files),
        ],
        tables={name: counts for name, counts in tables.items() if counts},
        sizes=sizes,
        problems=about_labels[:LINES],
        more_problems=max(len(about_labels) - LINES, 0),
        kinds=_show_kinds(manifest, row_of, images),
        groups=groups[:GROUPS],
        more_groups=max(duplicates["group"].nunique() - GROUPS, 0),
    )


def summarize(
    manifest: pd.DataFrame, problems: Sequence[Problem], duplicates: pd.DataFrame
) -> dict[str, Any]:
    """Count files by decision, reason, format, mode and label, and duplicates.

    Labels are counted on the photos that were not rejected: `labels` has those that carry each,
    `unlabelled` counts those that are known to carry none, and `unknown`, which is there only where
    something is not known, has those of which each label is not.
    """
    kept = keep(manifest)
    labels, targets = label_names(manifest), label_targets(kept)
    unknown = dict(zip(labels, (~is_known(targets)).sum(axis=0).tolist(), strict=True))
    kinds = [kind for reason in manifest["reason"] for kind in _kinds(reason)]
    shorter = kept[["width", "height"]].min(axis=1)
    return {
        "files": len(manifest),
        "decisions": _count(manifest["decision"]),
        "reasons": _count(kinds),
        "formats": _count(kept["format"]),
        "modes": _count(kept["mode"]),
        "labels": dict(zip(labels, (targets > 0).sum(axis=0).tolist(), strict=True)),
        "unlabelled": int((targets == 0).all(axis=1).sum()),
        **({} if all_known(targets) else {"unknown": unknown}),
        "shorter_side": {name: int(getattr(shorter, name)()) for name in ("min", "median", "max")},
        "label_problems": _count(
            problem.kind for problem in problems if problem.action == "noted" or problem.line
        ),
        "duplicate_groups": int(duplicates["group"].nunique()),
        "duplicate_photos": len(duplicates),
        "conflicting_groups": int(duplicates.loc[duplicates["conflict"] != "", "group"].nunique()),
    }


def tabulate_duplicates(manifest: pd.DataFrame) -> pd.DataFrame:
    """List the photos that have a duplicate.

    Returns:
        group, file, kind (exact where all bytes of the group are equal, else near), labels (one
        that is not known as `?label`), and conflict (the labels on which those photos of the group
        do not agree for which they are known); labels are separated by `;`.
    """
    labels = label_names(manifest)
    rows: list[list[str]] = []
    found = manifest[manifest["duplicate_group"] != ""]
    for name, group in found.groupby("duplicate_group", sort=True):
        differ = [label for label in labels if {0, 1} <= set(group[label])]
        kind = "exact" if group["sha256"].nunique() == 1 else "near"
        for row in _records(group):
            carried = [label for label in labels if row[label] == 1]
            carried += [f"?{label}" for label in labels if row[label] == UNKNOWN]
            rows.append([str(name), row["file"], kind, ";".join(carried), ";".join(differ)])
    return pd.DataFrame(rows, columns=["group", "file", "kind", "labels", "conflict"], dtype=str)


def draw_sizes(manifest: pd.DataFrame) -> Figure:
    """Draw a histogram of the shorter and the longer sides of all photos that could be read."""
    sides = manifest.loc[manifest["width"] > 0, ["width", "height"]].to_numpy()
    figure, axes = new_figure("Sizes of the source photos", "pixels", "photos")
    low, high = sides.min(), sides.max()
    logarithmic = high > 10 * low
    # Photos of one size get one bar, not an axis without an end.
    space = np.geomspace if logarithmic else np.linspace
    bins = space(low * 0.9, high * 1.1, 40).tolist()
    for values, colour, name in (
        (sides.min(axis=1), BLUE, "shorter side"),
        (sides.max(axis=1), ORANGE, "longer side"),
    ):
        axes.hist(values, bins=bins, histtype="step", linewidth=1.6, color=colour, label=name)
    if logarithmic:
        axes.set_xscale("log")
        ticks = [first * 10**power for power in range(6) for first in (1, 3)]
        axes.set_xticks([tick for tick in ticks if low < tick < high])
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def _headline(summary: dict[str, Any]) -> list[str]:
    decisions = summary["decisions"]
    parts = [f"{decisions.get(name, 0)} {name}" for name in ("kept", "converted", "rejected")]
    sentences = [f"{summary['files']} files: {', '.join(parts)}."]
    num, photos = summary["duplicate_groups"], summary["duplicate_photos"]
    sentences.append(
        f"{num} {'group' if num == 1 else 'groups'} of duplicates with {photos} photos; in "
        f"{summary['conflicting_groups']} of them the labels differ."
        if num
        else "No photo is there twice."
    )
    times = sum(summary["label_problems"].values())
    known = "are known to " if "unknown" in summary else ""
    sentences.append(
        f"{times} {'remark' if times == 1 else 'remarks'} on label files; "
        f"{summary['unlabelled']} photos {known}carry no label."
    )
    if "unknown" in summary:
        photos = summary["files"] - decisions.get("rejected", 0)
        unknown, entries = sum(summary["unknown"].values()), photos * len(summary["labels"])
        sentences.append(
            f"{unknown} of {entries} entries (a photo and a label) are not known: nothing is "
            "learnt from them, or judged by them."
        )
    return sentences


def _describe_changes(changes: Sequence[Change]) -> list[str]:
    if not changes:
        return []
    answers = Counter(change.answer for change in changes)
    told = ", ".join(f"{answers[answer]} {answer}" for answer in ANSWERS if answers[answer])
    number, photos = len(changes), len({change.photo for change in changes})
    return [
        f"{number} {'entry' if number == 1 else 'entries'} of {photos} "
        f"{'photo' if photos == 1 else 'photos'} were corrected by people ({told}): there the "
        "manifest says something else than the label files."
    ]


def _show_kinds(
    manifest: pd.DataFrame, row_of: dict[str, int], images: np.ndarray
) -> list[dict[str, Any]]:
    """Return a contact sheet of each kind of remark, the rejections first."""
    found: dict[tuple[int, str], list[dict[str, Any]]] = {}
    remarked = manifest[manifest["reason"] != ""]
    for row in _records(remarked):
        rank = ("rejected", "converted", "kept").index(row["decision"])
        for part in row["reason"].split("; "):
            found.setdefault((rank, _split_reason(part)[0]), []).append({**row, "part": part})
    kinds = []
    for (rank, name), rows in sorted(found.items(), key=lambda item: item[0]):
        tiles = []
        for row in rows[:TILES]:
            pixels = images[row_of[row["file"]]] if row["decision"] != "rejected" else None
            size = [f"{row['width']} x {row['height']}"] if row["width"] else []
            tiles.append(_tile(row["file"], [*size, _split_reason(row["part"])[1]], pixels))
        decision = ("rejected", "converted", "kept")[rank]
        more = max(len(rows) - TILES, 0)
        kinds.append(
            {
                "name": name,
                "count": len(rows),
                "decision": decision,
                "tiles": tiles,
                "more": more,
            }
        )
    return kinds


def _show_groups(
    kept: pd.DataFrame, duplicates: pd.DataFrame, images: np.ndarray
) -> list[dict[str, Any]]:
    row_of = {file: row for row, file in enumerate(kept["file"])}
    groups: list[dict[str, Any]] = []
    for _, group in duplicates.groupby("group", sort=True):
        rows = _records(group)
        tiles = [
            _tile(row["file"], [row["labels"].replace(";", ", ") or "no label"], None)
            | {"row": row_of[row["file"]]}
            for row in rows[:TILES]
        ]
        name = f"{len(rows)} photos, {rows[0]['kind']}"
        conflict = rows[0]["conflict"].replace(";", ", ")
        groups.append({"name": name, "conflict": conflict, "tiles": tiles})
    groups.sort(key=lambda shown: str(shown["conflict"]) == "")
    for shown in groups[:GROUPS]:
        for tile in shown["tiles"]:
            tile["image"] = _thumbnail(images[tile["row"]])
    return groups


def _tile(file: str, lines: list[str], pixels: np.ndarray | None) -> dict[str, Any]:
    name = file.rpartition("/")[2]
    return {
        "file": name,
        "lines": lines,
        "image": "" if pixels is None else _thumbnail(pixels),
    }


def _thumbnail(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=80)
    return data_uri(buffer.getvalue(), "image/jpeg")


def _split_reason(reason: str) -> tuple[str, str]:
    kind, _, detail = reason.partition(": ")
    return kind, detail


def _kinds(reason: str) -> list[str]:
    return [_split_reason(part)[0] for part in reason.split("; ") if part]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    with replace_file(path) as temporary:
        escape_spreadsheet_cells(table).to_csv(temporary, index=False, lineterminator="\n")
