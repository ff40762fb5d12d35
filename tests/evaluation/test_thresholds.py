import numpy as np
import pytest

from phototag.dataset.targets import UNKNOWN
from phototag.evaluation.thresholds import fit_thresholds
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.classification import f1_score


def fit(targets: np.ndarray, probabilities: np.ndarray, prior_strength: float) -> np.ndarray:
    """Return the thresholds that are best on the original sample."""
    weights = np.ones((1, len(targets)))
    return fit_thresholds(targets, probabilities, prior_strength, weights).values


def f1_at(targets: np.ndarray, probabilities: np.ndarray, threshold: float) -> float:
    return f1_score(targets, probabilities >= threshold, "micro")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("ties", [True, False])
def test_without_prior_the_highest_best_threshold_is_found(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    targets = (rng.random((30, 3)) < 0.3).astype(np.uint8)
    targets[0] = 1
    shape = targets.shape
    probabilities = rng.integers(0, 11, shape) / 10 if ties else rng.random(shape)
    for label, found in enumerate(fit(targets, probabilities, prior_strength=0)):
        truth, given = targets[:, label], probabilities[:, label]
        f1 = {p: f1_at(truth, given, p) for p in given}
        best = max(f1.values())
        assert f1_at(truth, given, found) == best
        lowest_taken = max(p for p, value in f1.items() if value == best)
        assert given[given >= found].min() == lowest_taken


@pytest.mark.parametrize("seed", range(5))
def test_strong_prior_gives_the_best_common_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = (rng.random((200, 4)) < [0.4, 0.3, 0.1, 0.0]).astype(np.uint8)
    probabilities = np.clip(rng.random((200, 4)) * 0.6 + 0.3 * targets, 0, 1)
    found = fit(targets, probabilities, prior_strength=1e9)
    f1 = f1_score(targets, probabilities >= found, "micro")
    assert f1 == pytest.approx(max(f1_at(targets, probabilities, p) for p in probabilities.ravel()))


def test_rare_label_gets_the_pooled_threshold_and_frequent_label_its_own() -> None:
    rng = np.random.default_rng(1)
    targets = np.zeros((900, 4), np.uint8)
    targets[:200, 0] = targets[200:400, 1] = targets[400:600, 2] = targets[600:603, 3] = 1
    probabilities = 0.4 + 0.15 * targets + 0.2 * rng.random((900, 4))
    probabilities[:, 2] -= 0.3  # a frequent label with lower probabilities
    own, regularized, common = (
        fit(targets, probabilities, prior_strength) for prior_strength in (0, 10, 1e9)
    )
    assert abs(own[2] - common[2]) > 0.2
    assert abs(regularized[2] - own[2]) < 0.02
    # The individual threshold of a label with three positives is random.
    assert abs(regularized[3] - common[3]) < abs(own[3] - common[3]) / 2


def test_threshold_is_halfway_between_probabilities() -> None:
    targets = np.array([0, 1, 0, 1], np.uint8)[:, None]
    probabilities = np.array([0.1, 0.6, 0.2, 0.9])[:, None]
    assert fit(targets, probabilities, 0).tolist() == pytest.approx([0.4])
    # The neighbour of the lowest probability is 0.
    found = fit(np.ones((2, 1), np.uint8), np.array([[0.4], [0.8]]), 0)
    assert found.tolist() == pytest.approx([0.2])


def test_bagged_threshold_is_the_mean_over_resamples() -> None:
    rng = np.random.default_rng(3)
    targets = (rng.random((40, 2)) < 0.4).astype(np.uint8)
    probabilities = rng.random((40, 2))
    weights = bootstrap_weights(40, 60, seed=0)
    each = [fit_thresholds(targets, probabilities, 2, row[None]).values for row in weights[1:]]
    found = fit_thresholds(targets, probabilities, 2, weights)
    np.testing.assert_allclose(found.values, np.mean(each, axis=0), atol=1e-12)
    np.testing.assert_allclose(found.low, np.percentile(each, 2.5, axis=0), atol=1e-12)


def test_threshold_is_half_without_positives() -> None:
    assert fit(np.zeros((3, 2), np.uint8), np.ones((3, 2)), 5).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("prior_strength", [0, 5])
def test_unknown_entries_are_ignored(prior_strength: float) -> None:
    rng = np.random.default_rng(4)
    truth = (rng.random((80, 2)) < 0.4).astype(np.int8)
    probabilities, weights = rng.random((80, 2)), bootstrap_weights(80, 40, seed=0)
    known = rng.random(80) < 0.7
    for labels in ([0], [0, 1]):
        targets, given = truth[:, labels], probabilities[:, labels]
        partly = np.where(known[:, None], targets, UNKNOWN)
        found = fit_thresholds(partly, given, prior_strength, weights)
        expected = fit_thresholds(targets[known], given[known], prior_strength, weights[:, known])
        np.testing.assert_allclose(found.values, expected.values, rtol=1e-12)
        np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high])
    nothing = np.full((3, 2), UNKNOWN)
    assert fit(nothing, np.ones((3, 2)), 5).tolist() == [0.5, 0.5]


def test_label_without_known_entries_gets_the_pooled_threshold() -> None:
    rng = np.random.default_rng(5)
    targets = (rng.random((200, 2)) < 0.4).astype(np.int8)
    probabilities = 0.3 + 0.2 * targets + 0.3 * rng.random(targets.shape)
    targets[:, 1] = UNKNOWN
    found = fit(targets, probabilities, prior_strength=10)
    assert found[1] == pytest.approx(found[0], abs=0.01)
