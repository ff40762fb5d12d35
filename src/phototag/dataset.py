"""The packed array and its labels, and batches of them on a device."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from phototag.errors import InputError
from phototag.manifest import SPLITS, label_names, label_targets, read_kept


@dataclass(frozen=True)
class Dataset:
    """The photos of one split.

    Attributes:
        images: uint8 [num_images, size, size, 3], the packed array of all splits, memory-mapped.
        rows: The rows of `images` that belong to this split, int64 [num_photos].
        targets: 0/1, uint8 [num_photos, num_labels].
        labels: The labels' names, [num_labels].
        files: The source file of each photo, [num_photos].
        sha256: The content hash of each photo's source file, [num_photos].
    """

    images: np.ndarray
    rows: np.ndarray
    targets: np.ndarray
    labels: list[str]
    files: list[str]
    sha256: list[str]

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.rows)


def read_datasets(images: Path, manifest: Path, splits: Path) -> dict[str, Dataset]:
    """Read all splits; the pixels stay on disk until a batch asks for them.

    Returns:
        Split name -> its photos; a split without photos is there, and empty.

    Raises:
        InputError: The three files do not belong together.
    """
    array = np.load(images, mmap_mode="r")
    kept = read_kept(manifest)
    assignment = pd.read_csv(splits, keep_default_na=False)
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
        )
    return datasets


def iter_batches(
    dataset: Dataset, batch_size: int, device: torch.device, rng: np.random.Generator | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the photos of a split in batches, shuffled when an `rng` is given.

    Yields:
        Images, uint8 [batch, 3, size, size] in channels_last memory, and targets,
        float32 [batch, num_labels]. The last batch may be smaller.
    """
    order = np.arange(len(dataset)) if rng is None else rng.permutation(len(dataset))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        images = torch.from_numpy(dataset.images[dataset.rows[chosen]])
        targets = torch.from_numpy(dataset.targets[chosen])
        # The packed array holds the channels last: the permuted view is channels_last already.
        yield images.to(device).permute(0, 3, 1, 2), targets.to(device).float()
