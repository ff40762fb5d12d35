import numpy as np
import pytest
import torch
from sklearn import metrics as oracle

from phototag import metrics


@pytest.fixture(params=range(5))
def decisions(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, probabilities with many ties, and predictions; some labels and rows are empty."""
    rng = np.random.default_rng(request.param)
    targets = (rng.random((60, 7)) < rng.random(7) * 0.6).astype(np.uint8)
    probabilities = rng.integers(0, 9, targets.shape) / 8
    predicted = (probabilities >= 0.6).astype(np.uint8)
    targets[:, 2] = 0  # no positive, some predictions
    predicted[:, 3] = 0  # positives, no prediction
    targets[:, 4] = predicted[:, 4] = 0  # neither
    targets[:5] = predicted[:5] = 0
    return targets, probabilities, predicted


def test_f1_equals_scikit_learn(decisions: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    targets, _, predicted = decisions
    for average in ("micro", "macro", "samples"):
        expected = oracle.f1_score(targets, predicted, average=average, zero_division=0)
        assert metrics.f1_score(targets, predicted, average) == pytest.approx(expected, abs=1e-12)
    per_label = oracle.f1_score(targets, predicted, average=None, zero_division=0)
    np.testing.assert_allclose(metrics.f1_per_label(targets, predicted), per_label, atol=1e-12)


def test_an_unknown_average_is_refused() -> None:
    with pytest.raises(ValueError, match="'weighted'"):
        metrics.f1_score(np.ones((1, 1)), np.ones((1, 1)), "weighted")


def test_precision_and_recall_equal_scikit_learn(
    decisions: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    targets, _, predicted = decisions
    expected = oracle.precision_recall_fscore_support(targets, predicted, zero_division=0)
    for found, wanted in zip(metrics.precision_recall(targets, predicted), expected, strict=False):
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_average_precision_with_ties_equals_scikit_learn(
    decisions: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    targets, probabilities, _ = decisions
    found = metrics.average_precision(targets, probabilities)
    for label in range(targets.shape[1]):
        if targets[:, label].any():
            expected = oracle.average_precision_score(targets[:, label], probabilities[:, label])
            assert found[label] == pytest.approx(expected, abs=1e-12)
        else:
            assert np.isnan(found[label])


def test_average_precision_does_not_depend_on_the_order_of_ties() -> None:
    targets = np.array([[1], [0], [0], [1]], np.uint8)
    probabilities = np.full((4, 1), 0.3)
    assert metrics.average_precision(targets, probabilities).tolist() == [0.5]
    assert metrics.average_precision(targets[::-1], probabilities).tolist() == [0.5]


def test_cross_entropy_equals_torch_and_stays_finite() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 30, (50, 6)).astype(np.float32)
    logits[0] = [1e4, -1e4, 80, -80, 0, 0]
    targets = (rng.random(logits.shape) < 0.5).astype(np.uint8)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(logits).double(), torch.from_numpy(targets).double()
    )
    assert metrics.binary_cross_entropy(targets, logits) == pytest.approx(float(expected), rel=1e-9)


def test_prior_loss_is_that_of_always_predicting_the_frequencies() -> None:
    targets = (np.random.default_rng(0).random((200, 4)) < [0.02, 0.3, 0.5, 0.9]).astype(np.uint8)
    prior = targets.mean(axis=0)
    logits = np.tile(np.log(prior / (1 - prior)), (200, 1))
    assert metrics.prior_loss(targets) == pytest.approx(
        metrics.binary_cross_entropy(targets, logits), rel=1e-9
    )
    assert metrics.prior_loss(np.array([[0, 1], [0, 1]])) == pytest.approx(0, abs=1e-9)
