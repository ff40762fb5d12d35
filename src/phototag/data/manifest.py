"""The manifest: one row a source file, what was decided about it, and its labels."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from phototag.base.errors import InputError
from phototag.base.files import replace_file
from phototag.data.targets import UNKNOWN

SPLITS = ("train", "val", "test")
DECIDED = ("decision", "reason", "format", "width", "height", "mode", "sha256", "phash")
COLUMNS = ("file", *DECIDED, "duplicate_group", "source_group")


@dataclass(frozen=True)
class Photo:
    """One source file and what was decided about it.

    Attributes:
        decision: kept | converted | rejected.
        reason: Why, in words, each of the form `kind` or `kind: detail`, joined by semicolons;
            empty where there is nothing to tell.
        format: Pillow's name (JPEG, PNG, ...); empty when it could not be read.
        width: Of the source as stored, in pixels; 0 when it could not be read.
        height: Of the source as stored, in pixels; 0 when it could not be read.
        mode: Pillow's mode of the source (RGB, L, ...); empty when it could not be read.
        sha256: Of the source file's bytes; empty when it could not be read.
        phash: Of `intake.duplicates.perceptual_hash`; empty for a rejected or a flat photo.
        pixels: uint8 [size, size, 3], or None when rejected.
    """

    decision: str
    reason: str
    format: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    sha256: str = ""
    phash: str = ""
    pixels: np.ndarray | None = None


def build_manifest(
    names: Sequence[str],
    photos: Sequence[Photo],
    targets: dict[str, np.ndarray],
    source_groups: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Join files, decisions and labels.

    Args:
        names: Source files, [num_files].
        photos: What was decided about each, [num_files].
        targets: Label -> 1, 0 or `UNKNOWN` for each file, int8 [num_files].
        source_groups: The user's own group of each (photographer, album), [num_files].

    Returns:
        `COLUMNS`, then one column a label. The rows that are not rejected are, in order, the
        rows of images.npy. No duplicates are filled in yet.

    Raises:
        InputError: As `check_labels`, or every file was rejected.
    """
    check_labels(targets)
    rows: dict[str, Sequence[object]] = {"file": [escape_name(name) for name in names]}
    rows |= {column: [getattr(photo, column) for photo in photos] for column in DECIDED}
    rows["reason"] = [escape_name(photo.reason) for photo in photos]  # may name another file
    blank = [""] * len(names)
    rows |= {"duplicate_group": blank, "source_group": source_groups or blank}
    manifest = pd.DataFrame({**rows, **targets})
    if (manifest["decision"] == "rejected").all():
        first = f" ({names[0]}: {photos[0].reason})" if names else ""
        raise InputError(f"no usable photo among {len(names)} files{first}")
    return manifest


def check_labels(labels: Iterable[str]) -> None:
    """Make sure that labels can stand in the manifest's header.

    Raises:
        InputError: One has the name of a column of the manifest's own, or is not UTF-8.
    """
    for label in labels:
        if label in COLUMNS:
            raise InputError(f"the label {label!r} is a manifest column's name: rename it")
        if escape_name(label) != label:
            raise InputError(f"the label {escape_name(label)!r} is not UTF-8: rename its file")


def escape_name(name: str) -> str:
    """Return a file's name as text that can be written: bytes that are not UTF-8 are escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def write_manifest(path: Path, manifest: pd.DataFrame) -> None:
    """Write the manifest as CSV; the cell of a label that is not known stays empty."""
    labels = label_names(manifest)
    partly = [label for label in labels if (manifest[label] == UNKNOWN).any()]
    manifest = manifest.replace(dict.fromkeys(partly, UNKNOWN), "")
    with replace_file(path) as temporary:
        manifest.to_csv(temporary, index=False, lineterminator="\n")


def read_kept(path: Path) -> pd.DataFrame:
    """Read the manifest's rows that are in images.npy, in its order, indexed from 0."""
    # A file called "NA.jpg" or an empty reason is text, not a missing value; a hash of digits
    # alone is no number.
    text = dict.fromkeys(("file", "reason", "sha256", "phash", *COLUMNS[-2:]), str)
    labels = label_names(pd.read_csv(path, nrows=0))
    empty = dict.fromkeys(labels, "")
    manifest = keep(pd.read_csv(path, keep_default_na=False, dtype=text, na_values=empty))
    targets = manifest[labels].fillna(UNKNOWN).astype(np.int8)
    return pd.concat([manifest.drop(columns=labels), targets], axis=1)


def keep(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are in images.npy, in its order, indexed from 0."""
    return manifest[manifest["decision"] != "rejected"].reset_index(drop=True)


def label_names(manifest: pd.DataFrame) -> list[str]:
    """Return the labels: every column that is not the manifest's own."""
    return [column for column in manifest.columns if column not in COLUMNS]


def label_targets(manifest: pd.DataFrame) -> np.ndarray:
    """Return the labels as 1, 0 or `UNKNOWN`, int8 [num_images, num_labels]."""
    return manifest[label_names(manifest)].to_numpy(np.int8)


def fingerprint(manifest: pd.DataFrame) -> str:
    """Hash the contents and labels of photos, whatever their names and order.

    Two scores compare only where this is equal.
    """
    lines = manifest[["sha256", *label_names(manifest)]].to_csv(index=False, lineterminator="\n")
    header, *rows = lines.splitlines()
    return hashlib.sha256("\n".join([header, *sorted(rows)]).encode()).hexdigest()[:16]
