import numpy as np
import pytest

from phototag.metrics.bootstrap import bootstrap_weights, confidence_interval, effective_groups
from phototag.metrics.classification import classification_scores


def test_first_weights_are_the_original_sample() -> None:
    weights = bootstrap_weights(10, 4, seed=0)
    assert weights.shape == (5, 10)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 10).all()
    assert (weights == bootstrap_weights(10, 4, seed=0)).all()
    assert (weights != bootstrap_weights(10, 4, seed=1)).any()


def test_interval_ignores_the_original_sample_and_nan() -> None:
    values = np.append([1e9], np.append(np.arange(1001.0), [np.nan] * 50))
    assert [float(end) for end in confidence_interval(values)] == [25, 975]
    assert np.isnan(confidence_interval(np.full(5, np.nan))).all()


def test_groups_of_one_photo_give_the_weights_without_groups() -> None:
    names = [f"{number:016x}" for number in np.random.default_rng(0).permutation(30)]
    plain = bootstrap_weights(30, 50, seed=3)
    assert (bootstrap_weights(30, 50, seed=3, groups=names) == plain).all()


def test_groups_are_drawn_whole() -> None:
    groups = ["album", "a", "album", "b", "album", "c"]
    weights = bootstrap_weights(6, 200, seed=0, groups=groups)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 4]).all()
    assert (weights[1:, [0, 1, 3, 5]].sum(axis=1) == 4).all()  # as many groups as there are
    assert (weights[0] == 1).all()


def test_interval_over_groups_has_the_theoretical_width() -> None:
    # 50 groups of 8 equal photos are 50 independent ones, so the interval is sqrt(8) times as wide.
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(50) < 0.7, 8).astype(np.uint8)[:, None]
    groups = [str(number // 8) for number in range(400)]
    widths = []
    for given in ([], groups):
        weights = bootstrap_weights(400, 4000, 0, given)
        found = classification_scores(np.ones_like(right), right, weights)["subset_accuracy"]
        low, high = confidence_interval(found)
        widths.append(float(high - low))
    share = right.mean()
    assert widths[1] == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 50), rel=0.08)
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(8), rel=0.08)


def test_effective_number_of_groups() -> None:
    assert effective_groups(list("abcdefghijkl")) == 12
    assert effective_groups(list("aaaabbbbcccc")) == 3
    # 100 photos: an album of 40, and 60 single photos.
    names = ["album"] * 40 + [str(number) for number in range(60)]
    assert effective_groups(names) == 100**2 / (40**2 + 60)


def test_a_single_group_gives_no_interval() -> None:
    weights = bootstrap_weights(5, 100, seed=0, groups=["album"] * 5)
    assert weights.tolist() == [[1.0] * 5]
    found = classification_scores(np.ones((5, 2)), np.ones((5, 2)), weights)
    low, high = confidence_interval(found["f1_micro"])
    assert np.isnan([low, high]).all()
