from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from phototag.base.errors import InputError
from phototag.dataset.dataset import (
    Dataset,
    describe_splits,
    fingerprint,
    move_to_device,
    read_batch,
    read_datasets,
    take_photos,
)
from phototag.dataset.manifest import label_targets, read_kept
from phototag.dataset.targets import UNKNOWN

CPU = torch.device("cpu")


def test_splits_hold_their_rows(packed: Path, datasets: dict[str, Dataset]) -> None:
    kept = read_kept(packed / "manifest.csv")
    assert [len(datasets[name]) for name in ("train", "val", "test")] == [24, 8, 8]
    for split in datasets.values():
        assert split.labels == ["blue", "green", "red"]
        assert np.array_equal(split.targets, label_targets(kept)[split.rows])
        assert list(kept["file"].iloc[split.rows]) == split.files
        bright = split.images[split.rows].mean(axis=(1, 2)) > 100
        assert np.array_equal(bright, split.targets.astype(bool))


def test_label_called_photos_is_counted_separately(datasets: dict[str, Dataset]) -> None:
    named = {
        split: replace(dataset, labels=["photos", "labels", "red"])
        for split, dataset in datasets.items()
    }
    counts = describe_splits(named)
    assert [counts[split]["photos"] for split in ("train", "val", "test")] == [24, 8, 8]
    expected = datasets["train"].targets.sum(axis=0).tolist()
    assert list(counts["train"]["labels"].items()) == list(
        zip(["photos", "labels", "red"], expected, strict=True)
    )


def test_batch_holds_the_photos_at_the_positions(datasets: dict[str, Dataset]) -> None:
    train = datasets["train"]
    positions = np.array([5, 0, 23])
    images, targets = read_batch(train, positions, CPU)
    expected = torch.from_numpy(train.images[train.rows[positions]]).permute(0, 3, 1, 2)
    assert torch.equal(images, expected)
    assert torch.equal(targets, torch.from_numpy(train.targets[positions]).float())
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_resident_photos_give_the_same_batches(datasets: dict[str, Dataset]) -> None:
    train = datasets["train"]
    resident = replace(train, resident=torch.from_numpy(train.images[train.rows]))
    positions = np.array([5, 0, 23])
    for ours, theirs in zip(
        read_batch(resident, positions, CPU), read_batch(train, positions, CPU), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert move_to_device(train, CPU) is train


def test_files_of_different_runs_are_refused(packed: Path, tmp_path: Path) -> None:
    splits = pd.read_csv(packed / "splits.csv")
    splits[::-1].to_csv(tmp_path / "splits.csv", index=False)
    with pytest.raises(InputError, match="come from different runs"):
        read_datasets(packed / "images.npy", packed / "manifest.csv", tmp_path / "splits.csv")


def test_fingerprint_depends_on_contents_and_labels_only(datasets: dict[str, Dataset]) -> None:
    train = datasets["train"]
    renamed = replace(take_photos(train, np.arange(24)[::-1]), files=["x"] * 24)
    assert fingerprint(renamed) == fingerprint(train)
    for targets in (1 - train.targets, np.where(train.targets, train.targets, UNKNOWN)):
        assert fingerprint(replace(train, targets=targets)) != fingerprint(train)
    assert fingerprint(replace(train, labels=["blue", "green", "pink"])) != fingerprint(train)
    assert fingerprint(take_photos(train, np.arange(1, 24))) != fingerprint(train)
    found = {split["fingerprint"] for split in describe_splits(datasets).values()}
    assert found == {fingerprint(datasets[name]) for name in ("train", "val", "test")}
    assert len(found) == 3


def test_unknown_targets_are_nan_in_a_batch(partly: dict[str, Dataset]) -> None:
    train = partly["train"]
    positions = np.array([5, 0, 23])
    _, targets = read_batch(train, positions, CPU)
    assert np.array_equal(targets.isnan().numpy(), train.targets[positions] == UNKNOWN)
    known = ~torch.isnan(targets)
    assert torch.equal(targets[known], torch.from_numpy(train.targets[positions]).float()[known])


def test_known_targets_are_counted_if_some_are_unknown(partly: dict[str, Dataset]) -> None:
    counts = describe_splits(partly)
    for split, photos in partly.items():
        columns = list(zip(photos.labels, photos.targets.T, strict=True))
        assert counts[split]["known"] == {n: (column != UNKNOWN).sum() for n, column in columns}
        assert counts[split]["labels"] == {n: (column == 1).sum() for n, column in columns}
    complete = {split: replace(d, targets=abs(d.targets)) for split, d in partly.items()}
    assert "known" not in describe_splits(complete)["train"]
    some = describe_splits(complete | {"val": partly["val"]})
    assert some["train"]["known"] == dict.fromkeys(partly["train"].labels, 24)
