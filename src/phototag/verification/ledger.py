"""The ledger of a dataset: one row per source file, with the decision about it and its labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from phototag.base.errors import InputError
from phototag.base.files import replace_file
from phototag.dataset.manifest import DECIDED, check_labels, escape_name, label_names
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.photos import Photo


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


def write_manifest(path: Path, manifest: pd.DataFrame) -> None:
    """Write the manifest as CSV; the cell of a label that is not known stays empty."""
    labels = label_names(manifest)
    partly = [label for label in labels if (manifest[label] == UNKNOWN).any()]
    manifest = manifest.replace(dict.fromkeys(partly, UNKNOWN), "")
    with replace_file(path) as temporary:
        manifest.to_csv(temporary, index=False, lineterminator="\n")
