import numpy as np
import pytest

from phototag.metrics import f1_score
from phototag.thresholds import best_threshold, choose_thresholds


def f1_at(targets: np.ndarray, probabilities: np.ndarray, threshold: float) -> float:
    return f1_score(targets, probabilities >= threshold, "micro")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("ties", [True, False])
def test_no_cut_is_better_and_no_higher_cut_as_good(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    targets = (rng.random(30) < 0.3).astype(np.uint8)
    targets[0] = 1
    probabilities = rng.integers(0, 11, 30) / 10 if ties else rng.random(30)
    found = best_threshold(targets, probabilities)
    scores = {p: f1_at(targets, probabilities, p) for p in probabilities}
    best = max(scores.values())
    assert f1_at(targets, probabilities, found) == best
    lowest_taken = max(p for p, score in scores.items() if score == best)
    assert probabilities[probabilities >= found].min() == lowest_taken


def test_the_threshold_stands_midway_between_neighbours() -> None:
    targets, probabilities = np.array([0, 1, 0, 1]), np.array([0.1, 0.6, 0.2, 0.9])
    assert best_threshold(targets, probabilities) == pytest.approx(0.4)
    # Below the lowest probability the neighbour is 0.
    assert best_threshold(np.ones(2, np.uint8), np.array([0.4, 0.8])) == pytest.approx(0.2)


def test_rare_labels_take_the_threshold_common_to_all() -> None:
    rng = np.random.default_rng(1)
    targets = (rng.random((200, 4)) < [0.4, 0.3, 0.1, 0.0]).astype(np.uint8)
    targets[:, 2] = 0
    targets[:4, 2] = 1
    # The labels' scores stand on different levels, so that their own thresholds differ.
    level = np.array([0.1, 0.5, 0.3, 0.2])
    probabilities = np.clip(level + 0.2 * targets + 0.2 * rng.random((200, 4)), 0, 1)
    common = best_threshold(targets.ravel(), probabilities.ravel())
    own = [best_threshold(targets[:, label], probabilities[:, label]) for label in range(3)]
    assert choose_thresholds(targets, probabilities, 5).tolist() == [own[0], own[1], common, common]
    assert choose_thresholds(targets, probabilities, 4).tolist() == [*own, common]
    # A label without any positive has no threshold of its own, whatever is asked for.
    assert choose_thresholds(targets, probabilities, 0).tolist() == [*own, common]
    assert own[0] != common != own[2]


def test_half_where_nothing_is_positive() -> None:
    assert choose_thresholds(np.zeros((3, 2), np.uint8), np.ones((3, 2)), 0).tolist() == [0.5, 0.5]
