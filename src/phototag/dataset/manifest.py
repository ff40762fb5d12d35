"""The manifest: one row a source file, what was decided about it, and its labels."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from phototag.base.errors import InputError
from phototag.dataset.targets import UNKNOWN

SPLITS = ("train", "val", "test")
DECIDED = ("decision", "reason", "format", "width", "height", "mode", "sha256", "phash")
COLUMNS = ("file", *DECIDED, "duplicate_group", "source_group")


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
