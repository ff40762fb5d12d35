"""Two models on the same photos.

One of many equal challengers leads by luck. So each further challenge of a champion on the same
photos must be surer: the k-th wins at the level ALPHA / (k (k + 1)), and as these sum to ALPHA, the
chance that a model that is no better ever wins is at most ALPHA, however many are tried (by Boole's
inequality, whatever the models have in common).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student

from phototag.base.errors import InputError
from phototag.base.files import read_json
from phototag.dataset.dataset import Dataset, take_photos
from phototag.dataset.targets import is_known
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.classification import classification_scores
from phototag.metrics.losses import sigmoid, weighted_cross_entropy
from phototag.metrics.ranking import ranking_scores
from phototag.network.inference import pick_device, predict_logits
from phototag.network.weights import load_model
from phototag.registry.decision import COLUMNS

METRICS = ("f1_micro", "f1_macro", "f1_samples", "mAP_macro", "loss")
DECIDES = "f1_micro"
ALPHA = 0.025  # of all challenges of one champion together; one-sided


def why_incomparable(judged: Dataset, model_file: Path, thresholds_file: Path) -> str:
    """Say why a model cannot be judged on these photos; nothing where it can."""
    try:
        (_, metadata), size = load_model(model_file), judged.images.shape[1]
        known = set(read_json(thresholds_file)["thresholds"])
    except (InputError, OSError, KeyError, TypeError, ValueError) as error:
        return f"its files cannot be read ({error})"
    if metadata.labels != judged.labels:
        return "it has other labels"
    if metadata.size != size:
        return f"it takes photos of {metadata.size} pixels a side, and these have {size}"
    return "" if known >= set(metadata.labels) else "its thresholds are of other labels"


def compare_models(
    judged: Dataset,
    challenger: tuple[Path, Path],
    champion: tuple[Path, Path],
    resamples: int,
    seed: int,
    number: int = 1,
) -> pd.DataFrame:
    """Score two models on the same photos, each at its own thresholds.

    The interval of the difference is a paired bootstrap: in each resample both are judged on the
    same photos (whole albums), so that what is hard for both cancels out. Photos of which nothing
    is known say nothing, and are none of those that are drawn from.

    Args:
        judged: The photos.
        challenger: Its model file and its thresholds file.
        champion: The same of the other.
        resamples: Of the bootstrap.
        seed: Of the resamples.
        number: Which challenge of this champion on these photos it is, from 1.

    Returns:
        `COLUMNS`; difference is the challenger minus the champion, low and high its interval, of
        `bound_difference`. And known, how many entries these count over, only where some are not.
    """
    judged = take_photos(judged, np.flatnonzero(is_known(judged.targets).any(axis=1)))
    weights = bootstrap_weights(len(judged), resamples, seed, judged.groups)
    groups = len(set(judged.groups)) or len(judged)
    new, old = (_score(judged, *files, weights) for files in (challenger, champion))
    table = pd.DataFrame(list_differences(new, old, METRICS, groups, number), columns=COLUMNS)
    known = np.count_nonzero(is_known(judged.targets))
    return table if judged.complete else table.assign(known=known)


def list_differences(
    new: Mapping[str, np.ndarray],
    old: Mapping[str, np.ndarray],
    metrics: Iterable[str],
    groups: int,
    number: int = 1,
) -> list[tuple[str, float, float, float, float, float]]:
    """List what two models score, and how far apart they are.

    Args:
        new: Metric -> its value on the photos as they are, and on each resample, [1 + resamples].
        old: The same of the other, on the same resamples.
        metrics: Which ones.
        groups: As of `bound_difference`, and so is `number`.
        number: Which challenge it is, from 1.

    Returns:
        A row a metric: its name, the new value, the old one, their difference, and its interval.
    """
    return [
        (
            name,
            float(new[name][0]),
            float(old[name][0]),
            float(new[name][0] - old[name][0]),
            *bound_difference(new[name] - old[name], groups, number),
        )
        for name in metrics
    ]


def level(number: int) -> float:
    """Return the one-sided level of the k-th challenge; the sum over all k is `ALPHA`."""
    return ALPHA / (number * (number + 1))


def coverage(number: int) -> str:
    """Write the coverage of the interval of the k-th challenge, in percent."""
    return f"{100 * (1 - 2 * level(number)):.6g}%"


def bound_difference(differences: np.ndarray, groups: int, number: int) -> tuple[float, float]:
    """Compute the interval of a difference, so wide as the k-th challenge asks.

    A thousand resamples have no percentile of one in a million: the interval is the difference
    plus and minus t s, with s the deviation over the resamples and t of Student's distribution
    with one degree of freedom less than there are groups of photos.

    Args:
        differences: Of the photos as they are, and of each resample, [1 + resamples].
        groups: How many photos or albums were drawn from.
        number: Which challenge it is, from 1.

    Returns:
        Lower and upper end; NaN where so few groups could by chance alone all speak for one model.
    """
    if 0.5**groups > level(number) or len(differences) < 2:
        return float("nan"), float("nan")
    half = student.ppf(1 - level(number), groups - 1) * np.nanstd(differences[1:], ddof=1)
    return float(differences[0] - half), float(differences[0] + half)


def _score(
    judged: Dataset, model_file: Path, thresholds_file: Path, weights: np.ndarray
) -> dict[str, np.ndarray]:
    network, metadata = load_model(model_file)
    point, device = read_json(thresholds_file), pick_device()
    logits = predict_logits(network.to(device), judged, device) / point["temperature"]
    thresholds = np.array([point["thresholds"][label] for label in metadata.labels])
    probabilities = sigmoid(logits)
    return (
        classification_scores(judged.targets, probabilities >= thresholds, weights)
        | ranking_scores(judged.targets, probabilities, weights)
        | {"loss": weighted_cross_entropy(judged.targets, logits, weights)}
    )


def judge(comparison: pd.DataFrame, number: int = 1) -> tuple[bool, str]:
    """Decide whether the challenger wins, and say why.

    It wins when the whole interval of the difference in micro F1 is above 0: a lead that other
    photos of the same kind might as well have turned round does not count.

    Args:
        comparison: Of `compare_models`.
        number: Which challenge of this champion on these photos it is, from 1.
    """
    row = comparison.set_index("metric").loc[DECIDES].to_dict()
    wins = bool(row["low"] > 0)
    verb = "beats" if wins else "does not clearly beat"
    photos = f"photos, of {row['known']:.0f} known entries" if "known" in row else "photos"
    if np.isnan(row["low"]):
        return False, (
            f"micro F1 {row['challenger']:.4f} {verb} {row['champion']:.4f}: these are too few "
            f"photos, or too few albums, to tell (challenge {number} of this champion)"
        )
    return wins, (
        f"micro F1 {row['challenger']:.4f} {verb} {row['champion']:.4f}: the difference, "
        f"{row['difference']:+.4f}, is {row['low']:+.4f} to {row['high']:+.4f} at "
        f"{coverage(number)} on the same {photos} (challenge {number} of this champion)"
    )
