from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn import metrics as sk

from phototag.dataset.targets import UNKNOWN
from phototag.metrics.losses import (
    baseline_loss,
    binary_cross_entropy,
    sigmoid,
    weighted_cross_entropy,
)
from tests.metrics.cases import Case, make_case, make_partly_known_case, resample


def test_sigmoid_is_exact_for_extreme_logits() -> None:
    logits = np.array([-1000, -2.0, 0, 2.0, 1000], np.float32)
    expected = [0, 1 / (1 + np.exp(2)), 0.5, 1 / (1 + np.exp(-2)), 1]
    assert sigmoid(logits).dtype == np.float64
    np.testing.assert_allclose(sigmoid(logits), expected, atol=1e-12)


def test_cross_entropy_equals_torch_and_is_finite() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 30, (50, 6)).astype(np.float32)
    logits[0] = [1e4, -1e4, 80, -80, 0, 0]
    targets = (rng.random(logits.shape) < 0.5).astype(np.uint8)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(logits).double(), torch.from_numpy(targets).double()
    )
    assert binary_cross_entropy(targets, logits) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [make_case, make_partly_known_case])
def test_cross_entropy_of_every_resample_equals_scikit_learn(
    make: Callable[[int], Case], seed: int
) -> None:
    targets, logits, weights = make(seed)
    found = weighted_cross_entropy(targets, logits, weights)
    for index, row in enumerate(weights):
        truth, given = resample(row, targets, sigmoid(logits))
        known = truth != UNKNOWN
        expected = sk.log_loss(truth[known], given[known])
        assert found[index] == pytest.approx(expected, abs=1e-12)
    assert binary_cross_entropy(targets, logits) == pytest.approx(found[0], rel=1e-12)


def test_loss_is_nan_if_nothing_is_known() -> None:
    nothing = np.full((3, 2), UNKNOWN)
    assert np.isnan(binary_cross_entropy(nothing, np.zeros((3, 2))))


def test_baseline_predicts_the_label_frequencies() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((80, 4)) < (0.3, 0.5, 0.1, 0.4)).astype(np.int8)
    targets[rng.random(targets.shape) < 0.3] = UNKNOWN
    frequencies = np.array([0.2, 0.6, 0.05, 0.5])
    known = targets != UNKNOWN
    given = np.broadcast_to(frequencies, targets.shape)
    expected = sk.log_loss(targets[known], given[known])
    assert baseline_loss(frequencies, targets) == pytest.approx(expected)
    assert np.isfinite(baseline_loss(np.array([0.0, 1, 0.5, 0.5]), targets))


def test_baseline_loss_on_equal_frequencies_is_their_entropy() -> None:
    frequencies = np.array([0.2, 0.6, 0.05, 0.5])
    expected = entropy([frequencies, 1 - frequencies], axis=0).mean()
    assert baseline_loss(frequencies, frequencies[None]) == pytest.approx(expected)
