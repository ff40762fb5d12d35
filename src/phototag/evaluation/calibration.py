"""Whether a probability means what it says."""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from phototag.dataset.targets import is_known
from phototag.metrics.losses import binary_cross_entropy

BINS = 10  # of equal width over 0..1
SCALE = 20.0  # temperatures from 1 / SCALE to SCALE are tried
ENOUGH = 2_000_000  # decisions for one temperature; of more, those of photos evenly apart


def fit_temperature(targets: np.ndarray, logits: np.ndarray) -> float:
    """Fit the temperature T for which logits / T have the smallest cross entropy.

    Over 1 the network is too sure of itself, under 1 too timid (Guo et al., 2017). One number for
    all labels changes no ranking.

    Args:
        targets: 1, 0 or `UNKNOWN`, [num_photos, num_labels].
        logits: float [num_photos, num_labels].
    """
    step = -(-targets.size // ENOUGH) or 1
    targets, logits = targets[::step], logits[::step]
    found = minimize_scalar(
        lambda log: binary_cross_entropy(targets, logits / np.exp(log)),
        bounds=(-np.log(SCALE), np.log(SCALE)),
        method="bounded",
    )
    return float(np.exp(found.x))


def tabulate_reliability(targets: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Compare predicted with observed frequency, bin by bin.

    Args:
        targets: 1, 0 or `UNKNOWN`, which is left out, [n].
        probabilities: 0..1 [n].

    Returns:
        One row a bin that has decisions: decisions (how many), predicted (their mean probability)
        and observed (their share of positives).
    """
    known = is_known(targets)
    targets, probabilities = targets[known], probabilities[known]
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    filled = count > 0
    columns: dict[str, np.ndarray] = {"decisions": count[filled]}
    for name, values in (("predicted", probabilities), ("observed", targets)):
        columns[name] = np.bincount(bins, values, minlength=BINS)[filled] / count[filled]
    return pd.DataFrame(columns)


def calibration_error(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Compute the expected calibration error, 0..1: the mean gap of the bins, by their size.

    Naeini, Cooper and Hauskrecht (2015), on the probability of the label.
    """
    table = tabulate_reliability(targets, probabilities)
    gap = (table["predicted"] - table["observed"]).abs()
    return float((gap * table["decisions"]).sum() / max(table["decisions"].sum(), 1))
