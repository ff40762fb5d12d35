"""Targets: whether a photo carries a label, 1 or 0, or `UNKNOWN` where nobody has said.

The third value stands in the array itself, int8 [num_photos, num_labels], and not in a mask beside
it: whatever cuts, joins or resamples photos brings it along, and it takes no memory. scikit-learn,
too, writes -1 for what is not labelled.
"""

import numpy as np

UNKNOWN = -1


def is_known(targets: np.ndarray) -> np.ndarray:
    """Tell which entries are known, bool of the same shape."""
    return np.asarray(targets != UNKNOWN)


def all_known(targets: np.ndarray) -> bool:
    """Tell whether every entry is known."""
    return bool(is_known(targets).all())


def label_rates(targets: np.ndarray) -> np.ndarray:
    """Return the share of the known entries that are positive, of each label.

    Args:
        targets: 1, 0 or `UNKNOWN`, [num_photos, num_labels].

    Returns:
        0..1, float64 [num_labels]; 0 for a label that is known for no photo.
    """
    known = is_known(targets).sum(axis=0)
    return np.asarray((targets > 0).sum(axis=0) / np.maximum(known, 1))
