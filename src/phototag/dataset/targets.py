"""Targets: 1 if a photo carries a label, 0 if it does not, `UNKNOWN` if nobody has decided.

Unknown targets are stored as -1 in the array itself. A separate mask would have to be updated
whenever photos are selected or joined. scikit-learn also marks unlabelled data with -1.
"""

import numpy as np

UNKNOWN = -1


def is_known(targets: np.ndarray) -> np.ndarray:
    """Return a boolean array of the same shape, which is True for known targets."""
    return np.asarray(targets != UNKNOWN)


def all_known(targets: np.ndarray) -> bool:
    """Return whether all targets are known."""
    return bool(is_known(targets).all())


def label_rates(targets: np.ndarray) -> np.ndarray:
    """Return the share of positives among the known targets of each label.

    The shares are float64 [num_labels] in 0..1; the share of a label without known targets is 0.
    """
    known = is_known(targets).sum(axis=0)
    return np.asarray((targets > 0).sum(axis=0) / np.maximum(known, 1))
