"""Folds of cross-validation."""

import numpy as np

from phototag.dataset.dataset import Dataset

FOLDS = 5


def assign_folds(photos: Dataset, seed: int) -> np.ndarray:
    """Return the fold of each photo, 1 to `FOLDS`, int64 [num_photos].

    All photos of a group (an album, or copies of one photo) are in the same fold. The folds have
    equal numbers of groups, except for a difference of one. Fewer than `FOLDS` groups result in one
    fold per group. The order of the photos does not change their folds.
    """
    names, members = np.unique(np.asarray(photos.groups or photos.files), return_inverse=True)
    return np.random.default_rng([seed, FOLDS]).permutation(len(names))[members] % FOLDS + 1
