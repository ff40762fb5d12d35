"""Targets: 1 if a photo carries a label, 0 if it does not, `UNKNOWN` if nobody has decided.

Unknown targets are stored as -1 in the array itself, not in a separate mask, so that they stay in
place when photos are selected, joined or resampled. scikit-learn also marks unlabelled data by -1.
"""

import numpy as np

UNKNOWN = -1


def is_known(targets: np.ndarray) -> np.ndarray:
    """Return which targets are known, bool of the same shape."""
    return np.asarray(targets != UNKNOWN)


def all_known(targets: np.ndarray) -> bool:
    """Return whether all targets are known."""
    return bool(is_known(targets).all())


def label_rates(targets: np.ndarray) -> np.ndarray:
    """Return the share of positives, 0..1, among the known targets of each label.

    The shares, float64 [num_labels], are 0 for a label without known targets.
    """
    known = is_known(targets).sum(axis=0)
    return np.asarray((targets > 0).sum(axis=0) / np.maximum(known, 1))
