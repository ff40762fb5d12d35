"""Calibration: the agreement of predicted probabilities with observed frequencies."""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from phototag.dataset.targets import is_known
from phototag.metrics.losses import binary_cross_entropy

NUM_BINS = 10  # number of bins of equal width into which 0..1 is divided
MAX_TEMPERATURE = 20.0  # search range: 1 / MAX_TEMPERATURE to MAX_TEMPERATURE


def fit_temperature(targets: np.ndarray, logits: np.ndarray) -> float:
    """Return the temperature T that minimizes the cross entropy of logits / T (Guo et al., 2017).

    The model is overconfident if T is above 1 and underconfident if T is below 1. All labels share
    one temperature: dividing all logits by the same number does not change their order.

    Args:
        targets: Targets (1, 0 or `UNKNOWN`), [num_photos, num_labels].
        logits: Logits, float, of the same shape.
    """
    found = minimize_scalar(
        lambda log: binary_cross_entropy(targets, logits / np.exp(log)),
        bounds=(-np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE)),
        method="bounded",
    )
    return float(np.exp(found.x))


def tabulate_reliability(targets: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Divide 0..1 into bins, and compare predicted probabilities with observed frequencies.

    Args:
        targets: Targets (1, 0 or `UNKNOWN`), [num_entries].
        probabilities: Probabilities (0..1), [num_entries].

    Returns:
        Table with one row per non-empty bin and the columns `entries` (number of known entries),
        `predicted` (mean predicted probability) and `observed` (share of positives).
    """
    known = is_known(targets)
    targets, probabilities = targets[known], probabilities[known]
    bins = np.minimum((probabilities * NUM_BINS).astype(int), NUM_BINS - 1)
    count = np.bincount(bins, minlength=NUM_BINS)
    filled = count > 0
    columns: dict[str, np.ndarray] = {"entries": count[filled]}
    for name, values in (("predicted", probabilities), ("observed", targets)):
        columns[name] = np.bincount(bins, values, minlength=NUM_BINS)[filled] / count[filled]
    return pd.DataFrame(columns)


def calibration_error(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """Compute the expected calibration error (ECE, 0..1) of predicted probabilities.

    The ECE is the mean of |predicted - observed| over the rows of `tabulate_reliability`, weighted
    by the number of entries in each row (Naeini, Cooper and Hauskrecht, 2015).

    Args:
        targets: Targets (1, 0 or `UNKNOWN`), [num_entries].
        probabilities: Probabilities (0..1), [num_entries].
    """
    table = tabulate_reliability(targets, probabilities)
    gap = (table["predicted"] - table["observed"]).abs()
    return float((gap * table["entries"]).sum() / max(table["entries"].sum(), 1))
