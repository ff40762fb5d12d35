"""Read the photos and labels of each split, and copy batches of photos to a device."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from phototag.base.errors import InputError
from phototag.base.files import read_table
from phototag.dataset.manifest import SPLITS, label_names, label_targets, read_kept
from phototag.dataset.targets import UNKNOWN, all_known, is_known


@dataclass(frozen=True)
class Dataset:
    """The photos of one split, or the features of these photos, with their labels.

    Attributes:
        images: Packed photos of all splits, uint8 [num_images, size, size, 3], memory-mapped; or
            the features of all photos, float32 [num_images, width].
        rows: Indices of the rows of `images` that belong to this split, int64 [num_photos].
        targets: 1, 0 or `UNKNOWN` for each photo and label, int8 [num_photos, num_labels].
        labels: Names of the labels, [num_labels].
        files: Source file of each photo, [num_photos].
        sha256: SHA-256 of each source file, [num_photos].
        groups: Group of each photo, [num_photos]; empty if each photo is a separate group.
        resident: Copy of the photos in GPU memory, uint8 [num_photos, size, size, 3], or None.
    """

    images: np.ndarray
    rows: np.ndarray
    targets: np.ndarray
    labels: list[str]
    files: list[str]
    sha256: list[str]
    groups: Sequence[str] = ()
    resident: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of photos in the split."""
        return len(self.rows)

    @cached_property
    def complete(self) -> bool:
        """Whether all targets are known."""
        return all_known(self.targets)


def read_datasets(images: Path, manifest: Path, splits: Path) -> dict[str, Dataset]:
    """Read all splits; photos are memory-mapped and read from disk when a batch needs them.

    Returns:
        Name of the split -> dataset; the dataset of a split without photos is empty.

    Raises:
        InputError: The three files come from different runs.
    """
    array = np.load(images, mmap_mode="r")
    kept = read_kept(manifest)
    # The dtype is str because the name of a group may consist of digits only.
    assignment = read_table(splits, keep_default_na=False, dtype=str)
    if len(array) != len(kept) or list(assignment["image"]) != list(kept["file"]):
        raise InputError(
            f"{images}, {manifest} and {splits} come from different runs: run `dvc repro`"
        )
    photos = Dataset(
        images=array,
        rows=np.arange(len(kept)),
        targets=label_targets(kept),
        labels=label_names(kept),
        files=list(kept["file"]),
        sha256=list(kept["sha256"]),
        groups=list(assignment["group"]) if "group" in assignment else (),
    )
    split = assignment["split"].to_numpy()
    return {name: take_photos(photos, np.flatnonzero(split == name)) for name in SPLITS}


def fingerprint(dataset: Dataset) -> str:
    """Return a hash of the photos' contents and labels, ignoring the names and order of files.

    The scores of two models are comparable only if the fingerprints of their photos are equal.
    """
    table = pd.DataFrame(dataset.targets, dataset.sha256, dataset.labels)
    header, *rows = table.to_csv(index_label="sha256", lineterminator="\n").splitlines()
    return hashlib.sha256("\n".join([header, *sorted(rows)]).encode()).hexdigest()[:16]


def describe_splits(datasets: Mapping[str, Dataset]) -> dict[str, dict[str, Any]]:
    """Return the fingerprint of each split, and its numbers of photos and positives.

    Returns:
        Name of the split -> `fingerprint`, `photos` (number of photos), `labels` (label -> number
        of positives) and, if any target is unknown, `known` (label -> number of known targets).
    """
    complete = all(dataset.complete for dataset in datasets.values())
    counts: dict[str, dict[str, Any]] = {}
    for split, dataset in datasets.items():
        parts = {"labels": dataset.targets > 0}
        if not complete:
            parts["known"] = is_known(dataset.targets)
        counts[split] = {"fingerprint": fingerprint(dataset), "photos": len(dataset)} | {
            name: dict(zip(dataset.labels, part.sum(axis=0).tolist(), strict=True))
            for name, part in parts.items()
        }
    return counts


def join_datasets(parts: Sequence[Dataset]) -> Dataset:
    """Concatenate splits that share the same packed array."""
    return replace(
        parts[0],
        rows=np.concatenate([part.rows for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        files=[file for part in parts for file in part.files],
        sha256=[digest for part in parts for digest in part.sha256],
        groups=[group for part in parts for group in part.groups],
    )


def take_photos(dataset: Dataset, positions: np.ndarray) -> Dataset:
    """Select the photos at the given positions in a split, integers [num_positions]."""
    return replace(
        dataset,
        rows=dataset.rows[positions],
        targets=dataset.targets[positions],
        files=[dataset.files[position] for position in positions],
        sha256=[dataset.sha256[position] for position in positions],
        groups=[dataset.groups[position] for position in positions] if dataset.groups else (),
        resident=None,
    )


def read_batch(
    dataset: Dataset, positions: np.ndarray, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Read the photos and targets at the given positions in a split, integers [batch].

    Returns:
        Photos, uint8 [batch, 3, size, size] in channels_last memory format, or features, float32
        [batch, width]; and targets, float32 [batch, num_labels], NaN for unknown targets.
    """
    targets = torch.from_numpy(dataset.targets[positions])
    if dataset.resident is not None:
        images = dataset.resident[torch.from_numpy(positions).to(device, non_blocking=True)]
    else:
        images = torch.from_numpy(dataset.images[dataset.rows[positions]])
    images = images.to(device, non_blocking=True)
    if images.ndim == 4:
        # The packed array stores channels last, so the permuted view is already channels_last.
        images = images.permute(0, 3, 1, 2)
    targets = targets.to(device, non_blocking=True).float()
    if not dataset.complete:
        targets[targets == UNKNOWN] = torch.nan
    return images, targets


def move_to_device(dataset: Dataset, device: torch.device) -> Dataset:
    """Copy a split's photos to GPU memory, as uint8, if they fit into half of the free memory.

    Otherwise, and on the CPU, return the split unchanged, so that batches are read from disk.
    """
    num_bytes = len(dataset) * dataset.images[:1].nbytes
    if device.type != "cuda" or num_bytes > torch.cuda.mem_get_info(device)[0] / 2:
        return dataset
    images = torch.from_numpy(dataset.images[dataset.rows])
    return replace(dataset, resident=images.to(device))
