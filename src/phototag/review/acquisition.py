"""Active learning: which photos to label next."""

import numpy as np
from scipy.special import entr

from phototag.dataset.targets import UNKNOWN


def measure_uncertainty(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Sum the predictive entropy of each photo's unknown entries, in nats.

    Args:
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels].
        probabilities: Probabilities (0..1), of the same shape.

    Returns:
        float64 [num_photos]; 0 for a photo whose labels are all known.
    """
    p = np.clip(probabilities, 1e-12, 1 - 1e-12)
    entropy = entr(p) + entr(1 - p)
    return np.asarray((entropy * (targets == UNKNOWN)).sum(axis=1))


def order_photos(uncertainty: np.ndarray, features: np.ndarray, count: int) -> np.ndarray:
    """Order photos so that each one is uncertain and differs from the photos before it.

    The next photo maximizes uncertainty times cosine distance to the nearest photo already chosen,
    so that several photos of one scene are not labelled one after another.

    Args:
        uncertainty: Uncertainty of each photo, not negative, [num_photos].
        features: Features, with rows of length 1 or 0, float [num_photos, num_features].
        count: Largest number of photos to return.

    Returns:
        Positions of the photos, int64 [at most count]. Photos with uncertainty 0 are left out.
    """
    distance = np.ones(len(features))
    chosen: list[int] = []
    for _ in range(min(count, int((uncertainty > 0).sum()))):
        score = uncertainty * distance
        score[chosen] = -1
        chosen.append(int(np.argmax(score)))
        distance = np.minimum(distance, 1 - features @ features[chosen[-1]])
    return np.array(chosen, np.int64)
