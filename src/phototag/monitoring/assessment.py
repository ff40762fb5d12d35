"""Assessment of a window: estimated scores, drift, and the decision about an alarm.

The estimate assumes that a probability means the same as on held-out photos. This holds if only the
frequencies of labels change, but not if the photos themselves change: a blurred photo has fewer
true positives than its probabilities promise. Such a change moves the distribution of the
familiarity, so the estimate is withheld if this distribution differs too much.

The k-th window of a version is tested at the level of the k-th challenge of a champion (see
`phototag.registry.comparison`). The probability of any false alarm is therefore limited, for any
number of windows.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import ks_2samp

from phototag.metrics.bootstrap import confidence_interval
from phototag.metrics.classification import MIN_POSITIVES, SCORES
from phototag.metrics.differences import bound_difference
from phototag.monitoring.estimates import estimate_scores, name_scores
from phototag.monitoring.properties import PROPERTIES
from phototag.monitoring.reference import Reference
from phototag.monitoring.windows import Window
from phototag.registry.comparison import level

MAX_DRIFT = 0.2  # largest KS statistic of the familiarity at which the estimate is shown
CRITICAL = 1.63  # 99% quantile of the KS statistic, times the square root of the number of photos
VERDICTS = ("no alarm", "alarm", "withheld")


@dataclass(frozen=True)
class Assessment:
    """Result for one window.

    Attributes:
        verdict: `alarm` if the whole interval of micro F1 lies below the reference, `withheld` if
            the photos are not comparable with the reference, otherwise `no alarm`.
        reason: Sentence that explains the verdict.
        metrics: Values for metrics.json.
        labels: Table with one row per label.
        drift: KS statistic of the familiarity and of each image property, by name; NaN if unknown.
    """

    verdict: str
    reason: str
    metrics: dict[str, float | int | str]
    labels: pd.DataFrame
    drift: dict[str, float]


def assess(window: Window, reference: Reference, number: int) -> Assessment:
    """Compare a window with the reference.

    Args:
        window: Predictions for the photos.
        reference: Reference of the model version that made the predictions.
        number: Number of the window among those of this model version, starting from 1.
    """
    scores, prevalence = estimate_scores(
        reference.calibrators, window.logits, window.predicted, seed=0
    )
    drift = {"familiarity": measure_drift(window.familiarity, reference.familiarity)}
    drift |= {
        name: measure_drift(window.properties[:, column], reference.properties[:, column])
        for column, name in enumerate(PROPERTIES)
    }
    size = len(window.sha256)
    limit = MAX_DRIFT + CRITICAL / np.sqrt(size)
    groups = min(float(size), reference.groups)
    low, high = bound_difference(scores[:, 0, 0] - reference.scores[:, 0, 0], groups, level(number))
    known = float(reference.scores[0, 0, 0])
    metrics: dict[str, float | int | str] = {"photos": size, "window": number}
    if np.isnan(drift["familiarity"]):
        verdict, reason = "withheld", "the familiarity of these photos or of the model is unknown"
    elif drift["familiarity"] > limit:
        verdict = "withheld"
        reason = (
            f"the photos differ from those that the model knows: the KS statistic of the "
            f"familiarity is {drift['familiarity']:.2f}, above {limit:.2f}: the estimate would be "
            "too high"
        )
    else:
        verdict = "alarm" if high < 0 else "no alarm"
        reason = (
            f"estimated micro F1 {scores[0, 0, 0]:.4f}, reference {known:.4f}: difference "
            f"{scores[0, 0, 0] - known:+z.4f}, {100 * (1 - 2 * level(number)):.6g}% interval "
            f"{low:+z.4f} to {high:+z.4f}"
        )
        bounds = (name_scores(bound) for bound in confidence_interval(scores))
        metrics |= name_scores(scores[0])
        for suffix, bound in zip(("low", "high"), bounds, strict=True):
            metrics |= {f"{name}_{suffix}": value for name, value in bound.items()}
    metrics |= {"reference_f1_micro": known, "verdict": verdict}
    metrics |= {f"drift_{name}": value for name, value in drift.items() if not np.isnan(value)}
    labels = _tabulate_labels(window, reference, scores, prevalence)
    if verdict == "withheld":
        labels = labels[["label", "drift"]]
    return Assessment(verdict, reason, metrics, labels, drift)


def measure_drift(values: np.ndarray, quantiles: np.ndarray) -> float:
    """Return the two-sample KS statistic, 0..1; NaN if values or quantiles are unknown."""
    values = values[np.isfinite(values)]
    if not len(values) or not len(quantiles):
        return float("nan")
    return float(ks_2samp(values, quantiles).statistic)


def _tabulate_labels(
    window: Window, reference: Reference, scores: np.ndarray, prevalence: np.ndarray
) -> pd.DataFrame:
    """Return a table with the estimated scores and prevalence, and the drift of each label."""
    table = pd.DataFrame({"label": reference.labels})
    estimates = {name: scores[:, row, 2:] for row, name in enumerate(SCORES)}
    for name, values in (estimates | {"prevalence": prevalence}).items():
        table[name] = values[0]
        table[f"{name}_low"], table[f"{name}_high"] = confidence_interval(values)
    few = reference.positives < MIN_POSITIVES
    table.loc[few, table.columns[1:10]] = np.nan
    table["reference_f1"] = np.where(few, np.nan, reference.scores[0, 0, 2:])
    table["reference_prevalence"] = reference.prevalence
    table["drift"] = [
        measure_drift(1 / (1 + np.exp(-window.logits[:, label])), reference.probabilities[:, label])
        for label in range(len(reference.labels))
    ]
    return table
