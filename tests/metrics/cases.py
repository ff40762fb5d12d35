"""Random targets, logits and bootstrap weights for comparisons with scikit-learn."""

import numpy as np

from phototag.dataset.targets import UNKNOWN
from phototag.metrics.bootstrap import bootstrap_weights

NUM_PHOTOS, NUM_LABELS = 60, 7
Case = tuple[np.ndarray, np.ndarray, np.ndarray]


def make_case(seed: int) -> Case:
    """Return targets, logits with many ties, and the weights of five resamples."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((NUM_PHOTOS, NUM_LABELS)) < 0.3).astype(np.uint8)
    logits = rng.integers(-4, 5, targets.shape) / 2.0 + targets
    targets[:, 2] = 0
    targets[:5] = 0
    return targets, logits, bootstrap_weights(NUM_PHOTOS, 5, seed)


def make_partly_known_case(seed: int) -> Case:
    """Return the same with two fifths of the targets unknown."""
    truth, logits, weights = make_case(seed)
    known = np.random.default_rng(9).random(truth.shape) < 0.6
    known[7] = False  # a photo without known entries
    known[:3] = True
    return np.where(known, truth, UNKNOWN).astype(np.int8), logits, weights


def resample(weights: np.ndarray, *tables: np.ndarray) -> list[np.ndarray]:
    """Repeat the photos of each table as often as one resample draws them."""
    rows = np.repeat(np.arange(NUM_PHOTOS), weights.astype(int))
    return [table[rows] for table in tables]
