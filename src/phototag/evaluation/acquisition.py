"""Which photos are worth labelling next (active learning)."""

import numpy as np

from phototag.dataset.targets import UNKNOWN


def measure_uncertainty(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Sum the entropies of each photo's entries that are not known, in nats.

    Args:
        targets: 1, 0 or `UNKNOWN`, [num_photos, num_labels].
        probabilities: 0..1, of the same shape.

    Returns:
        float64 [num_photos]; 0 for a photo of which all is known.
    """
    p = np.clip(probabilities, 1e-12, 1 - 1e-12)
    entropy = -p * np.log(p) - (1 - p) * np.log1p(-p)
    return np.asarray((entropy * (targets == UNKNOWN)).sum(axis=1))


def order_photos(uncertainty: np.ndarray, features: np.ndarray, count: int) -> np.ndarray:
    """Order photos so that each is uncertain, and unlike those before it.

    The next photo is the one whose uncertainty times its distance (1 - the cosine) to the nearest
    one before is highest: ten shots of one scene are no ten questions.

    Args:
        uncertainty: Not negative, [num_photos].
        features: Of unit length, or 0, float [num_photos, width].
        count: Photos wanted, at most.

    Returns:
        Positions, int64 [at most count]; a photo without uncertainty is never among them.
    """
    distance = np.ones(len(features))
    chosen: list[int] = []
    for _ in range(min(count, int((uncertainty > 0).sum()))):
        worth = uncertainty * distance
        worth[chosen] = -1
        chosen.append(int(np.argmax(worth)))
        distance = np.minimum(distance, 1 - features @ features[chosen[-1]])
    return np.array(chosen, np.int64)
