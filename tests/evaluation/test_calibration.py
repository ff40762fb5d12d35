import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve

from phototag.dataset.targets import UNKNOWN
from phototag.evaluation.calibration import (
    NUM_BINS,
    calibration_error,
    fit_temperature,
    tabulate_reliability,
)
from phototag.metrics.losses import binary_cross_entropy, sigmoid


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_fitted_temperature_equals_the_true_one(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 2, (20_000, 3))
    targets = (rng.random(logits.shape) < sigmoid(logits)).astype(np.uint8)
    found = fit_temperature(targets, logits * temperature)
    assert found == pytest.approx(temperature, rel=0.03)
    losses = [binary_cross_entropy(targets, logits * temperature / t) for t in (found, found * 1.1)]
    assert losses[0] < losses[1]


def test_reliability_equals_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    probabilities = np.append(rng.random(500) ** 3, [0.0, 1.0])
    targets = (rng.random(502) < probabilities**2).astype(np.uint8)
    table = tabulate_reliability(targets, probabilities)
    observed, predicted = calibration_curve(
        targets, probabilities, n_bins=NUM_BINS, strategy="uniform"
    )
    np.testing.assert_allclose(table["observed"], observed, atol=1e-12)
    np.testing.assert_allclose(table["predicted"], predicted, atol=1e-12)
    assert table["entries"].sum() == 502
    gap = np.abs(observed - predicted) @ table["entries"] / 502
    assert calibration_error(targets, probabilities) == pytest.approx(gap)


def test_unknown_entries_are_ignored() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(-1, 2, (500, 3))
    truth = (rng.random(logits.shape) < sigmoid(logits / 2)).astype(np.int8)
    known = rng.random(logits.shape) < 0.6
    targets, probabilities = np.where(known, truth, UNKNOWN), sigmoid(logits)
    expected = fit_temperature(truth[known][:, None], logits[known][:, None])
    assert fit_temperature(targets, logits) == pytest.approx(expected)
    table = tabulate_reliability(targets.ravel(), probabilities.ravel())
    pd.testing.assert_frame_equal(table, tabulate_reliability(truth[known], probabilities[known]))
    nothing = np.full(4, UNKNOWN)
    assert calibration_error(nothing, probabilities[:4, 0]) == 0
