import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phototag.dataset.targets import UNKNOWN
from phototag.decoding.photos import Photo
from phototag.verification.ledger import build_manifest
from phototag.verification.problems import Problem
from phototag.verification.report import (
    list_rejected,
    summarize,
    tabulate_duplicates,
    write_verification_report,
)

NAMES = ["images/im1.jpg", "images/im2.jpg", "images/im3.png", "images/im4.jpg", "images/im5.jpg"]
PHOTOS = [
    Photo("kept", "", "JPEG", 500, 375, "RGB", "aa"),
    Photo("kept", "wrong extension: PNG in .jpg", "PNG", 300, 400, "RGB", "bb"),
    Photo("converted", "grayscale; oriented by EXIF", "PNG", 200, 900, "L", "cc"),
    Photo("rejected", "truncated: <b>early</b>", "JPEG", 70, 70, "RGB", "dd"),
    Photo("kept", "", "JPEG", 500, 375, "RGB", "aa"),
]
TARGETS = {
    "cat": np.array([1, 0, 0, 1, 1], np.uint8),
    "dog": np.array([0, 0, 1, 0, 1], np.uint8),
}
LABEL_PROBLEMS = [
    Problem("annotations/cat.txt", 7, "no such image", "im99", "rejected"),
    Problem("annotations/notes.md", 0, "not a label file", "ignored", "noted"),
]


@pytest.fixture
def manifest() -> pd.DataFrame:
    imports = ["001-a", "001-a", "001-a", "002-b", "002-b"]
    table = build_manifest(NAMES, PHOTOS, TARGETS, imports=imports)
    table["duplicate_group"] = ["aa", "cc", "cc", "", "aa"]
    return table


def test_duplicates_are_listed_with_conflicting_labels(manifest: pd.DataFrame) -> None:
    assert tabulate_duplicates(manifest).to_numpy().tolist() == [
        ["aa", "images/im1.jpg", "exact", "cat", "dog"],
        ["aa", "images/im5.jpg", "exact", "cat;dog", "dog"],
        ["cc", "images/im2.jpg", "near", "", "dog"],
        ["cc", "images/im3.png", "near", "dog", "dog"],
    ]


def test_summary_counts_files_labels_and_duplicates(manifest: pd.DataFrame) -> None:
    summary = summarize(manifest, LABEL_PROBLEMS, tabulate_duplicates(manifest))
    assert summary == {
        "files": 5,
        "imports": {"001-a": 3, "002-b": 2},
        "decisions": {"kept": 3, "converted": 1, "rejected": 1},
        "reasons": {
            "grayscale": 1,
            "oriented by EXIF": 1,
            "truncated": 1,
            "wrong extension": 1,
        },
        "labels": {"cat": 2, "dog": 2},
        "unlabelled": 1,
        "unknown": {},
        "shorter_side": {"min": 200, "median": 337, "max": 375},
        "label_problems": {"no such image": 1, "not a label file": 1},
        "duplicate_groups": 2,
        "duplicate_photos": 4,
        "conflicting_groups": 2,
    }


def test_page_shows_every_kind_of_remark_and_escapes_text(
    manifest: pd.DataFrame, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    problems = [*list_rejected(manifest), *LABEL_PROBLEMS]
    write_verification_report(tmp_path, manifest, problems, images, 32)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in (
        "Files: 5 (3 kept, 1 converted, 1 rejected). Shorter side in pixels: 200 to 375, median",
        "Groups of duplicates: 2 (4 photos; labels differ in 2 groups).",
        "The photos are packed as 16 x 16 pixels, and the network enlarges them.",
        "<h3>grayscale (1, converted)</h3>",
        "<h3>wrong extension (1, kept)</h3>",
        "<h3>truncated (1, rejected)</h3>",
        "&lt;b&gt;early&lt;/b&gt;",
        "<td>annotations/cat.txt:7</td><td>no such image: im99</td><td>rejected</td>",
        "2 photos, near; different labels: dog",
        "<figcaption>images/im3.png<br>",
        "<td>002-b</td><td>2</td>",
    ):
        assert text in page, text
    assert page.count("<img") == 3 + 4  # three remarks, four duplicates
    assert "http" not in page
    table = pd.read_csv(tmp_path / "problems.csv", keep_default_na=False)
    assert table["file"].tolist() == [
        "images/im4.jpg",
        "annotations/cat.txt",
        "annotations/notes.md",
    ]
    assert json.loads((tmp_path / "summary.json").read_text())["files"] == 5


def test_dataset_without_problems_has_a_short_page(tmp_path: Path) -> None:
    manifest = build_manifest(NAMES[:1], PHOTOS[:1], {"cat": np.ones(1, np.uint8)})
    write_verification_report(tmp_path, manifest, [], np.zeros((1, 16, 16, 3), np.uint8), 16)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No duplicates found." in page
    assert "Remarks on photos" not in page
    assert "enlarges" not in page
    assert "<th>import</th>" not in page


def test_unknown_targets_are_counted_and_do_not_conflict(tmp_path: Path) -> None:
    targets = {
        "cat": np.array([1, 0, 0, 1, UNKNOWN], np.int8),
        "dog": np.array([0, UNKNOWN, 1, 0, 1], np.int8),
        "sea": np.array([0, 0, 0, UNKNOWN, 0], np.int8),
    }
    manifest = build_manifest(NAMES, PHOTOS, targets)
    manifest["duplicate_group"] = ["aa", "cc", "cc", "", "aa"]
    duplicates = tabulate_duplicates(manifest)
    assert duplicates[["labels", "conflicting_labels"]].to_numpy().tolist() == [
        ["cat", "dog"], ["dog;?cat", "dog"], ["?dog", ""], ["dog", ""]]  # fmt: skip
    summary = summarize(manifest, [], duplicates)
    assert summary["labels"] == {"cat": 1, "dog": 2, "sea": 0}
    assert summary["unknown"] == {"cat": 1, "dog": 1}, "im4 was rejected"
    assert (summary["unlabelled"], summary["conflicting_groups"]) == (0, 1)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    write_verification_report(tmp_path, manifest, [], images, 16)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Photos without labels: 0." in page
    assert "Unknown targets: 2 of 12" in page
    assert "<th>unknown label</th>" in page
