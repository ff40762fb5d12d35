import numpy as np
import pytest
from scipy.stats import entropy

from phototag.dataset.targets import UNKNOWN
from phototag.review.acquisition import measure_uncertainty, order_photos


def test_uncertainty_is_the_entropy_of_unknown_entries() -> None:
    rng = np.random.default_rng(0)
    targets = rng.choice([1, 0, UNKNOWN], (20, 5))
    targets[3] = 1
    probabilities = rng.random((20, 5))
    probabilities[0] = [0, 1, 0.5, 0, 1]
    each = entropy(np.stack([probabilities, 1 - probabilities]), axis=0)
    expected = np.where(targets == UNKNOWN, each, 0).sum(axis=1)
    assert measure_uncertainty(targets, probabilities) == pytest.approx(expected, abs=1e-9)
    assert measure_uncertainty(targets, probabilities)[3] == 0


def test_photos_of_different_scenes_come_first() -> None:
    rng = np.random.default_rng(0)
    scenes = np.linalg.qr(rng.normal(size=(16, 4)))[0].T
    shots = np.repeat(scenes, 10, axis=0) + 0.01 * rng.normal(size=(40, 16))
    shots /= np.linalg.norm(shots, axis=1, keepdims=True)
    # All photos of one scene are less certain than all photos of the next scene.
    uncertainty = np.repeat([1.0, 0.9, 0.8, 0.7], 10)
    assert (order_photos(uncertainty, shots, 4) // 10).tolist() == [0, 1, 2, 3]


def test_equally_distant_photos_are_ordered_by_uncertainty() -> None:
    far = np.eye(5)
    uncertainty = np.array([0.1, 0.0, 0.4, 0.3, 0.0])
    assert order_photos(uncertainty, far, 10).tolist() == [2, 3, 0]
    assert order_photos(uncertainty, far, 2).tolist() == [2, 3]
    assert order_photos(np.zeros(5), far, 2).tolist() == []


def test_equal_photos_are_returned_once_each() -> None:
    same = np.ones((6, 1))
    assert sorted(order_photos(np.ones(6), same, 6)) == list(range(6))
