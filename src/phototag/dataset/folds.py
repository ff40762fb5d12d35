"""Folds of cross-validation."""

import numpy as np

from phototag.dataset.dataset import Dataset

FOLDS = 5


def assign_folds(photos: Dataset, seed: int) -> np.ndarray:
    """Return the fold of each photo, 1 to `FOLDS`, int64 [num_photos].

    All photos of a group (an album, or copies of one photo) are in the same fold. The folds are
    stratified by label (iterative stratification, Sechidis et al., 2011): the groups with the
    rarest label are assigned first, each to the fold that has the fewest positives of this label.
    Without stratification, scores of rare labels would be too low, because a fold with many
    positives leaves few for the other folds. The order of the photos does not change their folds.
    Fewer than `FOLDS` groups result in one fold per group.
    """
    names, members = np.unique(np.asarray(photos.groups or photos.files), return_inverse=True)
    counts = np.zeros((len(names), photos.targets.shape[1] + 1))
    np.add.at(counts[:, :-1], members, photos.targets > 0)
    counts[:, -1] = np.bincount(members)  # number of photos
    columns = np.append(np.argsort(counts[:, :-1].sum(axis=0), kind="stable"), counts.shape[1] - 1)
    rarest = (counts[:, columns] > 0).argmax(axis=1)
    chance = np.random.default_rng([seed, FOLDS]).permutation(len(names))
    folds, totals = np.zeros(len(names), np.int64), np.zeros((FOLDS, counts.shape[1]))
    for group in np.lexsort([chance, rarest]):
        # If several folds have equally few positives, take the one with the fewest photos.
        fold = np.lexsort([totals[:, -1], totals[:, columns[rarest[group]]]])[0]
        totals[fold] += counts[group]
        folds[group] = fold + 1
    return folds[members]
