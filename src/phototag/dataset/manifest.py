"""The manifest: a table that lists the decision about each source file and its labels."""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from phototag.base.errors import InputError, escape_control
from phototag.base.files import read_table
from phototag.dataset.targets import UNKNOWN

SPLITS = ("train", "val", "test")
DECIDED = ("decision", "reason", "format", "width", "height", "mode", "sha256", "phash")
COLUMNS = ("file", "import", *DECIDED, "duplicate_group", "source_group")


def check_labels(labels: Iterable[str]) -> None:
    """Check that each label can be used as the name of a column in the manifest.

    Raises:
        InputError: A label is the name of another column of the manifest, contains control
            characters, or is not valid UTF-8.
    """
    for label in labels:
        if label in COLUMNS:
            raise InputError(f"the label {label!r} is a manifest column's name: rename the label")
        if escape_control(label) != label:
            in_utf8 = sys.getfilesystemencoding() == "utf-8"
            fix = "rename its file" if in_utf8 else "set the environment variable PYTHONUTF8=1"
            raise InputError(
                f"the label {label!r} contains control characters or is not UTF-8: {fix}"
            )


def read_kept(path: Path) -> pd.DataFrame:
    """Read the rows of the photos in images.npy: row i of the result is photo i of the array."""
    # Without these dtypes, pandas would read some names and hashes as numbers.
    text = dict.fromkeys(("file", "import", "reason", "sha256", "phash", *COLUMNS[-2:]), str)
    labels = label_names(read_table(path, nrows=0))
    empty = dict.fromkeys(labels, "")
    manifest = keep(read_table(path, keep_default_na=False, dtype=text, na_values=empty))
    targets = manifest[labels].fillna(UNKNOWN).astype(np.int8)
    return pd.concat([manifest.drop(columns=labels), targets], axis=1)


def keep(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the photos in images.npy: row i of the result is photo i of the array."""
    return manifest[manifest["decision"] != "rejected"].reset_index(drop=True)


def label_names(manifest: pd.DataFrame) -> list[str]:
    """Return the labels, which are the columns that are not in `COLUMNS`."""
    return [column for column in manifest.columns if column not in COLUMNS]


def label_targets(manifest: pd.DataFrame) -> np.ndarray:
    """Return the targets, which are 1, 0 or `UNKNOWN`, as int8 [num_images, num_labels]."""
    return manifest[label_names(manifest)].to_numpy(np.int8)
