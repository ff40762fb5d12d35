"""How much better than it is the best of many looks, on the photos by which it was chosen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from phototag.metrics.bootstrap import bootstrap_weights, confidence_interval
from phototag.metrics.classification import f1_score
from phototag.metrics.losses import binary_cross_entropy
from phototag.metrics.ranking import mean_average_precision
from phototag.search.studies import Objective

RESAMPLES = 200


@dataclass(frozen=True)
class Judged:
    """What one trial says of one seed's val photos.

    Attributes:
        logits: float [num_photos, num_labels].
        targets: 1, 0 or `UNKNOWN`, the same for all trials of a seed.
        groups: Each photo's album or file, [num_photos].
    """

    logits: np.ndarray
    targets: np.ndarray
    groups: np.ndarray


@dataclass(frozen=True)
class Optimism:
    """The winner's lead that is luck.

    Attributes:
        chosen: Mean score of the best on the photos by which it is the best.
        unseen: Mean score of the same on photos that had no part in choosing.
        low: Of their difference, the 2.5th percentile.
        high: The 97.5th.
        trials: Among how many was chosen.
    """

    chosen: float
    unseen: float
    low: float
    high: float
    trials: int

    @property
    def difference(self) -> float:
        """What is to be expected less on other photos; of a loss, more."""
        return abs(self.unseen - self.chosen)


def estimate_optimism(
    trials: Sequence[Sequence[Judged]], objective: Objective, seed: int
) -> Optimism | None:
    """Choose the best anew among trials, and judge it by photos that had no part in it.

    In each bootstrap resample of val's photos (whole albums) the best trial is chosen; the photos
    that were not drawn, about 37%, are as new to that choice as test is. How much worse the chosen
    one is there than on what it was chosen by is the optimism of choosing (bootstrap bias
    correction: Tsamardinos, Greasidou and Borboudakis, 2018). Which epoch is kept was chosen on val
    too, within each trial: that is not in it.

    Args:
        trials: Of each trial, what it says for each seed.
        objective: By which the best is chosen; the mean over seeds.
        seed: Of the resamples.

    Returns:
        None of fewer than two trials, or where no photos are left out.
    """
    if len(trials) < 2:
        return None
    score, sign = SCORES[objective], -1 if objective == "val_loss" else 1
    seeds = range(len(trials[0]))
    drawn = [
        bootstrap_weights(
            len(first.targets), RESAMPLES, seed + number, list(map(str, first.groups))
        )
        for number, first in enumerate(trials[0])
    ]
    if any(len(weights) < 2 for weights in drawn):
        return None
    chosen, unseen = [], []
    for resample in range(1, RESAMPLES + 1):
        rows = [weights[resample] for weights in drawn]
        seen = [np.repeat(np.arange(len(row)), row.astype(int)) for row in rows]
        left = [np.flatnonzero(row == 0) for row in rows]
        if any(len(photos) == 0 for photos in left):
            continue
        means = [
            float(np.mean([score(trial[number], seen[number]) for number in seeds]))
            for trial in trials
        ]
        best = max(range(len(trials)), key=lambda index: sign * means[index])
        chosen.append(means[best])
        unseen.append(float(np.mean([score(trials[best][n], left[n]) for n in seeds])))
    if not chosen:
        return None
    lost = sign * (np.array(chosen) - np.array(unseen))
    low, high = confidence_interval(np.append(lost[:1], lost))
    return Optimism(
        float(np.mean(chosen)), float(np.mean(unseen)), float(low), float(high), len(trials)
    )


def _loss(judged: Judged, photos: np.ndarray) -> float:
    return binary_cross_entropy(judged.targets[photos], judged.logits[photos])


def _precision(judged: Judged, photos: np.ndarray) -> float:
    return mean_average_precision(judged.targets[photos], judged.logits[photos])


def _f1(judged: Judged, photos: np.ndarray) -> float:
    return f1_score(judged.targets[photos], judged.logits[photos] >= 0, "macro")


SCORES: dict[str, Callable[[Judged, np.ndarray], float]] = {
    "val_loss": _loss,
    "mAP": _precision,
    "f1_macro": _f1,
}
