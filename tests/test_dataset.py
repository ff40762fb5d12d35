from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from phototag.dataset import Dataset, iter_batches, read_datasets
from phototag.errors import InputError
from phototag.manifest import fingerprint, label_targets, read_kept

CPU = torch.device("cpu")


def test_splits_hold_their_own_rows(packed: Path, datasets: dict[str, Dataset]) -> None:
    kept = read_kept(packed / "manifest.csv")
    assert [len(datasets[split]) for split in ("train", "val", "test")] == [24, 8, 8]
    for dataset in datasets.values():
        assert dataset.labels == ["blue", "green", "red"]
        assert np.array_equal(dataset.targets, label_targets(kept)[dataset.rows])
        assert list(kept["file"].iloc[dataset.rows]) == dataset.files
        bright = dataset.images[dataset.rows].mean(axis=(1, 2)) > 100
        assert np.array_equal(bright, dataset.targets.astype(bool))


def test_batches_cover_every_photo_once(datasets: dict[str, Dataset]) -> None:
    train = datasets["train"]
    batches = list(iter_batches(train, 7, CPU))
    assert [len(images) for images, _ in batches] == [7, 7, 7, 3]
    images = torch.cat([images for images, _ in batches])
    expected = torch.from_numpy(train.images[train.rows]).permute(0, 3, 1, 2)
    assert torch.equal(images, expected)
    assert torch.equal(torch.cat([t for _, t in batches]), torch.from_numpy(train.targets).float())
    first = batches[0][0]
    assert first.dtype == torch.uint8
    assert first.is_contiguous(memory_format=torch.channels_last)


def test_shuffling_moves_photos_and_targets_together(datasets: dict[str, Dataset]) -> None:
    shuffled = list(iter_batches(datasets["train"], 24, CPU, np.random.default_rng(0)))
    again = list(iter_batches(datasets["train"], 24, CPU, np.random.default_rng(0)))
    other = list(iter_batches(datasets["train"], 24, CPU, np.random.default_rng(1)))
    images, targets = shuffled[0]
    assert torch.equal(images, again[0][0])
    assert not torch.equal(images, other[0][0])
    assert torch.equal((images.float().mean(dim=(2, 3)) > 100).float(), targets)


def test_files_of_different_runs_are_refused(packed: Path, tmp_path: Path) -> None:
    splits = pd.read_csv(packed / "splits.csv")
    splits[::-1].to_csv(tmp_path / "splits.csv", index=False)
    with pytest.raises(InputError, match="do not belong together"):
        read_datasets(packed / "images.npy", packed / "manifest.csv", tmp_path / "splits.csv")


def test_fingerprint_is_of_contents_and_labels_alone(packed: Path) -> None:
    kept = read_kept(packed / "manifest.csv")
    renamed = kept.assign(file="x", reason="y")[::-1]
    assert fingerprint(renamed) == fingerprint(kept)
    relabelled = kept.assign(blue=1 - kept["blue"])
    assert fingerprint(relabelled) != fingerprint(kept)
    assert fingerprint(kept[1:]) != fingerprint(kept)
