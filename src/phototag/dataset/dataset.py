"""The packed array and its labels, and batches of them on a device."""

import os
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
from phototag.dataset.manifest import SPLITS, label_names, label_targets, read_kept
from phototag.dataset.targets import UNKNOWN, all_known, is_known

BLOCK = 64  # neighbouring photos that are read together: 3 MB at 128 pixels a side
POOL = 64  # blocks whose photos are shuffled together: 200 MB


@dataclass(frozen=True)
class Dataset:
    """The photos of one split.

    Attributes:
        images: uint8 [num_images, size, size, 3], the packed array of all splits, memory-mapped;
            or what stands for it, the photos' features, float32 [num_images, width].
        rows: The rows of `images` that belong to this split, int64 [num_photos].
        targets: 1, 0 or `UNKNOWN`, int8 [num_photos, num_labels].
        labels: The labels' names, [num_labels].
        files: The source file of each photo, [num_photos].
        sha256: The content hash of each photo's source file, [num_photos].
        groups: Each photo's group (album, copies of one photo), [num_photos]; none, where every
            photo stands for itself.
        resident: The split's photos in a GPU's memory, uint8 [num_photos, size, size, 3], or None.
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
        """Return the number of photos."""
        return len(self.rows)

    @cached_property
    def complete(self) -> bool:
        """Whether all targets are known."""
        return all_known(self.targets)


def read_datasets(images: Path, manifest: Path, splits: Path) -> dict[str, Dataset]:
    """Read all splits; the pixels stay on disk until a batch asks for them.

    Returns:
        Split name -> its photos; a split without photos is there, and empty.

    Raises:
        InputError: The three files do not belong together.
    """
    array = np.load(images, mmap_mode="r")
    kept = read_kept(manifest)
    # A group of digits alone is no number.
    assignment = pd.read_csv(splits, keep_default_na=False, dtype=str)
    if len(array) != len(kept) or list(assignment["image"]) != list(kept["file"]):
        raise InputError(
            f"{images}, {manifest} and {splits} do not belong together: run `dvc repro`"
        )
    targets = label_targets(kept)
    datasets = {}
    for split in SPLITS:
        rows = np.flatnonzero(assignment["split"] == split)
        datasets[split] = Dataset(
            images=array,
            rows=rows,
            targets=targets[rows],
            labels=label_names(kept),
            files=list(kept["file"].iloc[rows]),
            sha256=list(kept["sha256"].iloc[rows]),
            groups=list(assignment["group"].iloc[rows]) if "group" in assignment else (),
        )
    return datasets


def count_labels(datasets: Mapping[str, Dataset]) -> dict[str, dict[str, Any]]:
    """Count the photos of each split (`photos`), and those of each label (`labels`).

    Where some targets are not known, also the photos of which each label is known (`known`).
    """
    complete = all(dataset.complete for dataset in datasets.values())
    counts: dict[str, dict[str, Any]] = {}
    for split, dataset in datasets.items():
        parts = {"labels": dataset.targets > 0}
        if not complete:
            parts["known"] = is_known(dataset.targets)
        counts[split] = {"photos": len(dataset)} | {
            name: dict(zip(dataset.labels, part.sum(axis=0).tolist(), strict=True))
            for name, part in parts.items()
        }
    return counts


def join_datasets(parts: Sequence[Dataset]) -> Dataset:
    """Join splits of one array, one after the other."""
    return replace(
        parts[0],
        rows=np.concatenate([part.rows for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        files=[file for part in parts for file in part.files],
        sha256=[digest for part in parts for digest in part.sha256],
        groups=[group for part in parts for group in part.groups],
    )


def take_photos(dataset: Dataset, positions: np.ndarray) -> Dataset:
    """Take some photos of a split, by their positions in it."""
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
    """Read some photos of a split.

    Args:
        dataset: The split.
        positions: In the split, integers [batch].
        device: Where the batch goes.

    Returns:
        Images, uint8 [batch, 3, size, size] in channels_last memory, or features, and targets,
        float32 [batch, num_labels], NaN where they are not known: what is computed of them is then
        not known either.
    """
    targets = torch.from_numpy(dataset.targets[positions])
    if dataset.resident is not None:
        images = dataset.resident[torch.from_numpy(positions).to(device, non_blocking=True)]
    else:
        images = torch.from_numpy(dataset.images[dataset.rows[positions]])
    images = images.to(device, non_blocking=True)
    if images.ndim == 4:
        # The packed array holds the channels last: the permuted view is channels_last already.
        images = images.permute(0, 3, 1, 2)
    targets = targets.to(device, non_blocking=True).float()
    if not dataset.complete:
        targets[targets == UNKNOWN] = torch.nan
    return images, targets


def move_to_device(dataset: Dataset, device: torch.device) -> Dataset:
    """Put a split's photos into a GPU's memory as uint8, where they take at most half of it.

    Batches are then gathered there; on the CPU, and for more photos, they are read as they come.
    """
    num_bytes = len(dataset) * dataset.images[:1].nbytes
    if device.type != "cuda" or num_bytes > torch.cuda.mem_get_info(device)[0] / 2:
        return dataset
    images = torch.empty(
        (len(dataset), *dataset.images.shape[1:]),
        dtype=torch.from_numpy(dataset.images[:1].copy()).dtype,
    )
    for start in range(0, len(dataset), 1024):
        rows = dataset.rows[start : start + 1024]
        images[start : start + len(rows)] = torch.from_numpy(dataset.images[rows])
    return replace(dataset, resident=images.to(device))


def shuffle_positions(dataset: Dataset, rng: np.random.Generator) -> np.ndarray:
    """Shuffle the positions of a split, [num_photos].

    Where the photos fit into memory, all orders are equally likely. A larger array is read from
    disk again each epoch: then blocks of neighbours are shuffled, and the photos within a pool of
    blocks, so that what is read lies together.
    """
    count = len(dataset)
    if dataset.resident is not None or dataset.images.nbytes < physical_memory() / 2:
        return rng.permutation(count)
    blocks = np.array_split(np.arange(count), max(count // BLOCK, 1))
    order = rng.permutation(len(blocks))
    pools = [order[start : start + POOL] for start in range(0, len(order), POOL)]
    return np.concatenate(
        [rng.permutation(np.concatenate([blocks[block] for block in pool])) for pool in pools]
    )


def physical_memory() -> int:
    """Return the machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
