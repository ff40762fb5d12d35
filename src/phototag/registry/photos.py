"""Photos on which a registered version was trained or selected.

Each version contains a list of these photos as the file `artifacts/photos.txt`. The file is a part
of the version and not of its run, so the list exists as long as the weights do. Each line is an id
of 16 hexadecimal digits: the start of a photo's SHA-256 hash, or the name of the photo's group. For
a photo without duplicates and album, both are the same id.
"""

from collections.abc import Collection, Iterable, Mapping, Set
from pathlib import Path

import numpy as np

from phototag.base.errors import InputError
from phototag.base.files import write_text
from phototag.dataset.dataset import Dataset, join_datasets, take_photos

DIGITS = 16


def list_ids(datasets: Mapping[str, Dataset]) -> set[str]:
    """Return the ids of the photos in train and val, and the names of their groups."""
    parts = [datasets[split] for split in ("train", "val")]
    return {name for part in parts for names in zip(*_names(part), strict=True) for name in names}


def write_ids(path: Path, ids: Iterable[str]) -> None:
    """Write ids to a file, one id per line, in ascending order."""
    write_text(path, "".join(f"{name}\n" for name in sorted(ids)))


def read_ids(path: Path) -> set[str]:
    """Read the ids that `write_ids` wrote.

    Raises:
        InputError: There is no such file.
    """
    try:
        return set(path.read_text(encoding="utf-8").split())
    except FileNotFoundError:
        raise InputError(
            "it was registered before phototag recorded the photos that a version was trained on"
        ) from None


def take_unseen(
    photos: Dataset,
    datasets: Mapping[str, Dataset],
    ids: Set[str],
    cross_validated: Collection[str] = (),
) -> Dataset:
    """Return the photos without those in `ids` and without all photos of their groups.

    Groups are those of `datasets` and, for photos that were removed since, the groups in `ids`.
    Photos in `cross_validated` are kept, because their predictions come from models that were not
    trained on them.
    """
    seen, kept = set(ids), set(cross_validated)
    for name, group in zip(*_names(join_datasets(list(datasets.values()))), strict=True):
        if name in ids:
            seen.add(group)
    unseen = [
        names[0] in kept or seen.isdisjoint(names) for names in zip(*_names(photos), strict=True)
    ]
    return take_photos(photos, np.flatnonzero(unseen))


def list_photo_ids(photos: Dataset) -> list[str]:
    """Return the id of each photo."""
    return [digest[:DIGITS] for digest in photos.sha256]


def _names(photos: Dataset) -> tuple[list[str], list[str]]:
    """Return the id of each photo, and the name of its group."""
    ids = list_photo_ids(photos)
    return ids, list(photos.groups) or ids
