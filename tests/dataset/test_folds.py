"""Folds of cross-validation."""

from dataclasses import replace

import numpy as np
import pytest

from phototag.dataset.dataset import Dataset, take_photos
from phototag.dataset.folds import FOLDS, assign_folds
from phototag.dataset.targets import UNKNOWN


@pytest.mark.parametrize("num_groups", [2, 5, 13])
def test_groups_are_whole_and_no_fold_is_empty(
    datasets: dict[str, Dataset], num_groups: int
) -> None:
    photos = datasets["train"]
    groups = [f"g{row % num_groups}" for row in range(len(photos))]
    photos = replace(photos, groups=groups)
    folds = assign_folds(photos, seed=0)
    fold_of = dict(zip(groups, folds.tolist(), strict=True))
    assert [fold_of[group] for group in groups] == folds.tolist()
    assert len(set(fold_of.values())) == min(num_groups, FOLDS)
    turned = take_photos(photos, np.arange(len(photos))[::-1])
    assert assign_folds(turned, seed=0).tolist() == folds[::-1].tolist()
    others = [assign_folds(photos, seed).tolist() for seed in range(1, 6)]
    assert folds.tolist() not in others or num_groups == 2


def test_folds_have_equally_many_photos_and_positives(datasets: dict[str, Dataset]) -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((500, 4)) < (0.02, 0.1, 0.4, 0.0)).astype(np.int8)
    targets[rng.random(targets.shape) < 0.1] = UNKNOWN
    names = [f"{row:03}" for row in range(500)]
    photos = Dataset(datasets["train"].images, np.arange(500), targets, list("abcd"), names, names)
    folds = assign_folds(photos, seed=0)
    sizes = np.bincount(folds)[1:]
    positives = np.stack([(targets[folds == fold] > 0).sum(axis=0) for fold in range(1, 6)])
    assert np.ptp(sizes) <= 10
    assert np.ptp(positives, axis=0).max() <= 2
