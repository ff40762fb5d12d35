"""Folds of cross-validation."""

from dataclasses import replace

import numpy as np
import pytest

from phototag.dataset.dataset import Dataset, take_photos
from phototag.dataset.folds import FOLDS, assign_folds


@pytest.mark.parametrize("num_groups", [2, 5, 13])
def test_groups_are_whole_and_folds_have_equal_numbers_of_groups(
    datasets: dict[str, Dataset], num_groups: int
) -> None:
    photos = datasets["train"]
    groups = [f"g{row % num_groups}" for row in range(len(photos))]
    photos = replace(photos, groups=groups)
    folds = assign_folds(photos, seed=0)
    fold_of = dict(zip(groups, folds.tolist(), strict=True))
    assert [fold_of[group] for group in groups] == folds.tolist()
    sizes = np.bincount(list(fold_of.values()))[1:]
    assert len(sizes) == min(num_groups, FOLDS)
    assert sizes.max() - sizes.min() <= 1
    turned = take_photos(photos, np.arange(len(photos))[::-1])
    assert assign_folds(turned, seed=0).tolist() == folds[::-1].tolist()
    others = [assign_folds(photos, seed).tolist() for seed in range(1, 6)]
    assert folds.tolist() not in others or num_groups == 2
