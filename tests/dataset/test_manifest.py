import sys
from pathlib import Path

import numpy as np
import pytest

from phototag.base.errors import InputError
from phototag.dataset.manifest import check_labels, label_names, label_targets, read_kept
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.photos import Photo
from phototag.verification.ledger import build_manifest, write_manifest

GOOD = Photo("kept", "", "JPEG", 5, 5, "RGB", "aa", "0012")
BAD = Photo("rejected", "zero bytes", sha256="bb")


def test_rejected_rows_are_written_and_not_read_as_kept(tmp_path: Path) -> None:
    targets = {"NA": np.array([1, 0, 1], np.uint8), "null": np.array([0, 1, 1], np.uint8)}
    manifest = build_manifest(["NA", 'b, "c"', "ü.jpg"], [GOOD, BAD, GOOD], targets)
    write_manifest(tmp_path / "manifest.csv", manifest)
    assert (tmp_path / "manifest.csv").read_text().count("\n") == 4
    kept = read_kept(tmp_path / "manifest.csv")
    assert list(kept["file"]) == ["NA", "ü.jpg"]
    assert list(kept["reason"]) == ["", ""]
    assert list(kept["phash"]) == ["0012", "0012"]
    assert list(kept["duplicate_group"]) == list(kept["source_group"]) == ["", ""]
    assert list(kept.index) == [0, 1]
    assert label_names(kept) == ["NA", "null"]
    assert label_targets(kept).tolist() == [[1, 0], [1, 1]]


def test_names_and_reasons_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    bad = Photo("rejected", "unreadable: \udcff.jpg")
    targets = {"cat": np.ones(2, np.uint8)}
    manifest = build_manifest(["im1\udcff.jpg", "b.jpg"], [GOOD, bad], targets, ["me", ""])
    write_manifest(tmp_path / "m.csv", manifest)
    assert "unreadable: \\udcff.jpg" in (tmp_path / "m.csv").read_text()
    kept = read_kept(tmp_path / "m.csv")
    assert (kept["file"][0], kept["source_group"][0]) == ("im1\\udcff.jpg", "me")


def test_manifest_without_kept_photos_is_refused() -> None:
    with pytest.raises(InputError, match=r"all 1 files were rejected \(a.jpg: zero bytes\)"):
        build_manifest(["a.jpg"], [BAD], {"cat": np.zeros(1, np.uint8)})


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("d\udcffg", r"the label 'd.+udcffg' contains .* or is not UTF-8: rename its file"),
        ("do\rg", r"the label .* contains control characters or is not UTF-8: rename its file"),
        ("mode", "'mode' is a manifest column"),
    ],
)
def test_label_that_cannot_be_a_column_is_refused(label: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_labels([label])


def test_name_in_utf8_is_read_if_the_encoding_of_file_names_is_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")  # LC_ALL=C, PYTHONUTF8=0
    with pytest.raises(InputError, match=r"is not UTF-8: set the environment variable PYTHONUTF8"):
        check_labels(["\udcc3\udca9"])


def test_unknown_target_is_an_empty_cell(tmp_path: Path) -> None:
    targets = {
        "NA": np.array([1, UNKNOWN, 0], np.int8),
        "cat": np.array([0, 1, 1], np.int8),
        "self": np.array([UNKNOWN, UNKNOWN, 1], np.int8),
    }
    manifest = build_manifest(["a", "b", "c"], [GOOD] * 3, targets)
    write_manifest(tmp_path / "manifest.csv", manifest)
    rows = (tmp_path / "manifest.csv").read_text().splitlines()
    assert [row.rsplit(",", 3)[1:] for row in rows] == [
        ["NA", "cat", "self"], ["1", "0", ""], ["", "1", ""], ["0", "1", "1"]]  # fmt: skip
    kept = read_kept(tmp_path / "manifest.csv")
    assert label_targets(kept).tolist() == np.stack(list(targets.values()), axis=1).tolist()
    assert label_targets(kept).dtype == np.int8
    assert label_targets(manifest).tolist() == label_targets(kept).tolist()


def test_label_that_is_unknown_for_all_kept_photos_is_refused() -> None:
    targets = {"cat": np.array([UNKNOWN, 1], np.int8)}
    with pytest.raises(InputError, match="the label 'cat' is unknown for all photos"):
        build_manifest(["a", "b"], [GOOD, BAD], targets)
