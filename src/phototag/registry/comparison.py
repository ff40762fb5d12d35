"""Comparison of a challenger with the champion on the same photos.

If many models challenge the champion, one that is not better may win by chance. To limit this risk,
the k-th challenge is tested at the one-sided level `ALPHA / (k * (k + 1))`. The sum of the levels
of all challenges is `ALPHA`. By Boole's inequality, the probability that any challenger wins
without being better is therefore at most `ALPHA`, for any number of challengers.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

from phototag.base.errors import InputError
from phototag.dataset.dataset import Dataset, take_photos
from phototag.dataset.targets import is_known
from phototag.metrics.bootstrap import bootstrap_weights, effective_groups
from phototag.metrics.classification import classification_scores
from phototag.metrics.losses import sigmoid, weighted_cross_entropy
from phototag.metrics.ranking import ranking_scores
from phototag.network.inference import pick_device, predict_logits
from phototag.registry.decision import COLUMNS
from phototag.serving.tagger import load_tagger

METRICS = ("f1_micro", "f1_macro", "f1_samples", "mAP_macro", "loss")
DECIDING_METRIC = "f1_micro"
ALPHA = 0.025  # sum of the one-sided levels of all challenges of a champion
ModelFiles = tuple[Path, Path]  # model file (safetensors), thresholds file


def compare_models(
    photos: Dataset,
    challenger: ModelFiles,
    champion: ModelFiles,
    resamples: int,
    seed: int,
    challenge: int = 1,
) -> pd.DataFrame:
    """Score two models on the same photos, each model at its own thresholds.

    The interval of each difference comes from a paired bootstrap: every resample draws the same
    groups of photos for both models, so the difficulty of the photos cancels out. Photos without
    any known label are ignored. `challenge` is the number of this challenge of the champion,
    starting from 1.

    Returns:
        Table with the columns `COLUMNS` and one row per metric. `difference` is the challenger's
        value minus the champion's value. `low` and `high` are the bounds that `bound_difference`
        returns. If some labels are unknown, the column `known` has the number of known targets.

    Raises:
        InputError: A model cannot be read, or its labels or photo size do not match the photos.
    """
    photos = take_photos(photos, np.flatnonzero(is_known(photos.targets).any(axis=1)))
    weights = bootstrap_weights(len(photos), resamples, seed, photos.groups)
    groups = effective_groups(photos.groups or photos.files)
    old, new = (_score(photos, files, weights) for files in (champion, challenger))
    rows = list_differences(new, old, METRICS, groups, level(challenge))
    table = pd.DataFrame(rows, columns=COLUMNS)
    known = np.count_nonzero(is_known(photos.targets))
    return table if photos.complete else table.assign(known=known)


def _score(photos: Dataset, files: ModelFiles, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return each metric on all photos and then on each resample, float64 [1 + resamples]."""
    tagger, size = load_tagger(*files), photos.images.shape[1]
    if tagger.labels != photos.labels:
        raise InputError("its labels differ from those of the dataset")
    if tagger.size != size:
        raise InputError(
            f"it was trained on photos of {tagger.size} pixels a side, but the photos to compare "
            f"on have {size} pixels"
        )
    device = pick_device()
    logits = predict_logits(tagger.network.to(device), photos, device) / tagger.temperature
    probabilities = sigmoid(logits)
    return (
        classification_scores(photos.targets, probabilities >= tagger.thresholds, weights)
        | ranking_scores(photos.targets, probabilities, weights)
        | {"loss": weighted_cross_entropy(photos.targets, logits, weights)}
    )


def list_differences(
    new: Mapping[str, np.ndarray],
    old: Mapping[str, np.ndarray],
    metrics: Iterable[str],
    groups: float,
    tail: float,
) -> list[tuple[str, float, float, float, float, float]]:
    """Return the name, new value, old value, difference and interval bounds of each metric.

    `new` and `old` contain the values of each metric on the original sample (first value) and on
    each resample, float64 [1 + resamples]. `bound_difference` describes `groups` and `tail`.
    """
    return [
        (
            name,
            float(new[name][0]),
            float(old[name][0]),
            float(new[name][0] - old[name][0]),
            *bound_difference(new[name] - old[name], groups, tail),
        )
        for name in metrics
    ]


def level(challenge: int) -> float:
    """Return the one-sided level of the k-th challenge. The sum over all k is `ALPHA`."""
    return ALPHA / (challenge * (challenge + 1))


def coverage(challenge: int) -> str:
    """Return the coverage of the confidence interval in the k-th challenge, such as `97.5%`."""
    return f"{100 * (1 - 2 * level(challenge)):.6g}%"


def bound_difference(differences: np.ndarray, groups: float, tail: float) -> tuple[float, float]:
    """Return the confidence interval of a difference, with the coverage `1 - 2 * tail`.

    A thousand resamples are too few to estimate percentiles at the small levels of late challenges.
    Therefore, the bounds are `difference - t * s` and `difference + t * s`. Here, `s` is the
    standard deviation over the resamples, and `t` is a quantile of Student's t. The variance is
    estimated from n groups and with r resamples: its relative variance is that of a product of two
    chi-squared variables. The degrees of freedom are those of one variable with the same value.

    Args:
        differences: Differences on the original sample (first value) and on each resample, float64
            [1 + resamples].
        groups: Number of groups in the sample, returned by `effective_groups`.
        tail: Probability on each side of the interval, 0.025 for a 95% interval.

    Returns:
        Lower and upper bound. Both are NaN if there are too few groups: the probability that all
        groups favour the same model by chance must not be above `tail`.
    """
    n, r = groups, np.count_nonzero(np.isfinite(differences[1:]))
    if 0.5**n > tail or r < 2:
        return float("nan"), float("nan")
    freedom = 1 / (1 / (n - 1) + 1 / (r - 1) + 2 / ((n - 1) * (r - 1)))
    deviation = np.nanstd(differences[1:], ddof=1) * np.sqrt(n / (n - 1))
    half = student.ppf(1 - tail, freedom) * deviation
    return float(differences[0] - half), float(differences[0] + half)


def judge(comparison: pd.DataFrame, challenge: int = 1) -> tuple[bool, str]:
    """Return whether the challenger wins, and the reason for this decision.

    The challenger wins if the lower bound for the difference in micro F1 is above 0.
    """
    row = comparison.set_index("metric").loc[DECIDING_METRIC].to_dict()
    wins = bool(row["low"] > 0)
    verb = "beats" if wins else "does not clearly beat"
    scores = f"micro F1 {row['challenger']:.4f} {verb} {row['champion']:.4f}"
    if np.isnan(row["low"]):
        reason = "there are too few photos or groups for an interval"
    else:
        known = f" with {row['known']:.0f} known entries" if "known" in row else ""
        reason = (
            f"the difference on the same photos{known} is {row['difference']:+.4f}, with a "
            f"{coverage(challenge)} interval from {row['low']:+.4f} to {row['high']:+.4f}"
        )
    return wins, f"{scores}: {reason} (challenge {challenge} of this champion)"
