"""Build and write the manifest, which has one row per source file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from phototag.base.errors import InputError, escape_control
from phototag.base.files import write_table
from phototag.dataset.manifest import DECIDED, label_names
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.photos import Photo


def build_manifest(
    names: Sequence[str],
    photos: Sequence[Photo],
    targets: dict[str, np.ndarray],
    source_groups: Sequence[str] | None = None,
    imports: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Join the files, the decisions about them, their labels and their groups into one table.

    `imports` are the names of the imports that contain the files.

    Returns:
        A table with the columns `COLUMNS` and one column per label. The column duplicate_group
        is empty. The rows of photos that are not rejected have the same order as in images.npy.

    Raises:
        InputError: All files were rejected, or a label is unknown for all photos.
    """
    # Unescaped line breaks in names would become additional rows when the manifest is read.
    rows: dict[str, Sequence[object]] = {"file": [escape_control(name) for name in names]}
    rows["import"] = [escape_control(name) for name in imports or [""] * len(names)]
    rows |= {column: [getattr(photo, column) for photo in photos] for column in DECIDED}
    rows["reason"] = [escape_control(photo.reason) for photo in photos]
    rows["duplicate_group"] = [""] * len(names)
    rows["source_group"] = [escape_control(group) for group in source_groups or [""] * len(names)]
    manifest = pd.DataFrame({**rows, **targets})
    kept = manifest[manifest["decision"] != "rejected"]
    if kept.empty:
        first = f" ({names[0]}: {photos[0].reason})" if names else ""
        raise InputError(f"all {len(names)} files were rejected{first}: fix at least one photo")
    for label in targets:
        if (kept[label] == UNKNOWN).all():
            raise InputError(
                f"the label {label!r} is unknown for all photos: label some of them, or set "
                "data.labels to the other labels"
            )
    return manifest


def write_manifest(path: Path, manifest: pd.DataFrame) -> None:
    """Write the manifest to a CSV file; unknown targets become empty cells."""
    labels = label_names(manifest)
    partly = [label for label in labels if (manifest[label] == UNKNOWN).any()]
    write_table(path, manifest.replace(dict.fromkeys(partly, UNKNOWN), ""))
