"""Comparison of two models, and a simulation of many challenges."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom
from scipy.stats import t as student
from sklearn.metrics import f1_score

from phototag.dataset.dataset import Dataset, take_photos
from phototag.dataset.targets import UNKNOWN
from phototag.metrics.bootstrap import bootstrap_weights, effective_groups
from phototag.metrics.differences import bound_difference
from phototag.network.features import PROBES
from phototag.network.weights import load_model
from phototag.registry.comparison import (
    ALPHA,
    Contestant,
    compare_models,
    coverage,
    judge,
    level,
)
from tests.models import make_backbone, make_model

REPETITIONS, CHALLENGERS, PHOTOS, LABELS = 30, 200, 100, 5


def count_false_wins(number_of: int | None, albums: int = 0) -> int:
    """Return the number of repetitions in which an equal challenger beats the champion.

    Args:
        number_of: Number used for every challenge. Omit to use the true number.
        albums: Number of equal photos in one group; 0 means single photos.
    """
    false, alike = 0, albums or 1
    for repetition in range(REPETITIONS):
        rng = np.random.default_rng(repetition)
        shape = (CHALLENGERS + 1, PHOTOS // alike, LABELS)
        truth = rng.random(shape[1:]) < 0.3
        predicted = truth ^ (rng.random(shape) < 0.2)  # a fifth of the predictions is wrong
        truth, predicted = (np.repeat(part, alike, axis=-2) for part in (truth, predicted))
        groups = [str(photo // alike) for photo in range(truth.shape[0])]
        weights = bootstrap_weights(len(groups), 100, repetition, groups)
        right, said = (weights @ part.sum(axis=2).T for part in (predicted & truth, predicted))
        f1 = 2 * right / (said + (weights @ truth.sum(axis=1))[:, None])
        differences = (f1[:, 1:] - f1[:, :1]).T
        lows = [
            bound_difference(each, effective_groups(groups), level(number_of or number))[0]
            for number, each in enumerate(differences, start=1)
        ]
        false += max(lows) > 0
    return false


@pytest.mark.parametrize("albums", [0, 5])
def test_equal_challengers_win_at_most_with_probability_alpha(albums: int) -> None:
    # The 99.9% quantile if the probability is ALPHA.
    assert count_false_wins(None, albums) <= binom.ppf(0.999, REPETITIONS, ALPHA)


def test_level_of_a_single_challenge_is_too_lenient_for_200() -> None:
    assert count_false_wins(1) > binom.ppf(1 - 1e-9, REPETITIONS, ALPHA)


def test_levels_sum_to_alpha() -> None:
    assert level(1) == ALPHA / 2
    total = sum(level(number) for number in range(1, 100_001))
    assert total == pytest.approx(ALPHA, rel=2e-5)
    assert total < ALPHA
    assert [coverage(1), coverage(2)] == ["97.5%", "99.1667%"]


def test_clear_difference_wins_after_many_challenges() -> None:
    rng = np.random.default_rng(0)
    differences = np.append(0.05, 0.05 + 0.005 * rng.standard_normal(1000))
    low, high = bound_difference(differences, 400, level(100))
    assert 0 < low < 0.05 < high
    half = student.ppf(1 - level(100), 399) * differences[1:].std(ddof=1)
    assert (low, high) == pytest.approx((0.05 - half, 0.05 + half), rel=0.01)


@pytest.mark.parametrize(
    ("sizes", "resamples"),
    [([1] * 10, 20), ([1] * 40, 20), ([1] * 7, 100), ([30, 15, *[5] * 6, *[1] * 20], 50)],
)
def test_difference_of_equal_models_is_rarely_significant(sizes: list[int], resamples: int) -> None:
    """The models differ by chance, with the same sign for all photos of a group."""
    rng, repetitions = np.random.default_rng(0), 2000
    groups = np.repeat(np.arange(len(sizes)), sizes)
    chance = rng.standard_normal((repetitions, len(sizes)))
    effective = effective_groups(list(map(str, groups)))
    false = 0
    for repetition in range(repetitions):
        drawn = rng.multinomial(len(sizes), [1 / len(sizes)] * len(sizes), resamples)
        weights = np.vstack([np.ones(len(sizes)), drawn]) * sizes
        differences = weights @ chance[repetition] / weights.sum(axis=1)
        false += bound_difference(differences, effective, level(1))[0] > 0
    # The 99.9% quantile if the probability is the level.
    assert false <= binom.ppf(0.999, repetitions, level(1))


def test_few_photos_have_no_interval() -> None:
    # Six photos that all favour one model have probability 1/64, more than 1.25%.
    sure = np.full(101, 0.5)
    assert np.isnan(bound_difference(sure, 6, level(1))).all()
    assert bound_difference(sure, 7, level(1)) == (0.5, 0.5)
    assert np.isnan(bound_difference(sure[:2], 400, level(1))).all()
    assert np.isnan(bound_difference(sure[:1], 400, level(1))).all()


def test_comparison_uses_known_entries_only(datasets: dict[str, Dataset], tmp_path: Path) -> None:
    """Five photos have no known label; scikit-learn gets the known entries of the others."""
    judged, rng = datasets["train"], np.random.default_rng(0)
    known = rng.random(judged.targets.shape) < 0.6
    known[:5] = False
    partly = replace(judged, targets=np.where(known, judged.targets, UNKNOWN))
    rest = take_photos(partly, np.arange(5, 24))
    new, old = (Contestant(make_model(tmp_path / str(known), known)) for known in (3, 1))
    found = compare_models(partly, new, old, resamples=50, seed=0)
    assert found.scores.equals(compare_models(rest, new, old, resamples=50, seed=0).scores)
    assert (found.scores["known"] == known.sum()).all()
    row = found.scores.set_index("metric").loc["f1_micro"]
    truth = judged.targets[known]
    for name, labels in (("challenger", 3), ("champion", 1)):
        # A model predicts the true value of the labels that it knows.
        given = (judged.targets * (np.arange(3) < labels))[known]
        assert row[name] == pytest.approx(f1_score(truth, given))
    assert judge(found.scores)[0]
    assert "known" not in compare_models(judged, new, old, resamples=2, seed=0).scores


def enlarge(photos: Dataset, factor: int) -> Dataset:
    """Repeat each pixel."""
    return replace(photos, images=photos.images.repeat(factor, axis=1).repeat(factor, axis=2))


def write_features(model: Contestant, photos: Dataset, path: Path) -> Path:
    network, _ = load_model(model.files[0])
    with torch.inference_mode():
        np.save(path, network[:2](torch.from_numpy(photos.images).permute(0, 3, 1, 2)).numpy())
    return path


def test_cached_features_of_a_model_are_used(datasets: dict[str, Dataset], tmp_path: Path) -> None:
    photos = enlarge(datasets["test"], 2)
    model = Contestant(make_backbone(tmp_path / "a", photos.images.shape[1]))
    cached = write_features(model, photos, tmp_path / "features.npy")
    expected = compare_models(photos, model, model, resamples=10, seed=0)
    # Only the photos with which the features are checked keep their pixels.
    checked = np.linspace(0, len(photos.images) - 1, PROBES).astype(int)
    blank = np.zeros_like(photos.images)
    blank[checked] = photos.images[checked]
    photos = replace(photos, images=blank)
    found = compare_models(photos, model, model, resamples=10, seed=0, features=cached)
    np.testing.assert_allclose(found.challenger.logits, expected.challenger.logits, atol=1e-4)


def test_cached_features_of_larger_photos_are_not_used(
    datasets: dict[str, Dataset], tmp_path: Path
) -> None:
    """The same weights accept photos of both sides."""
    large, small = enlarge(datasets["test"], 4), enlarge(datasets["test"], 2)
    champion = Contestant(make_backbone(tmp_path / "a", small.images.shape[1]))
    cached = write_features(champion, large, tmp_path / "features.npy")
    expected = compare_models(small, champion, champion, resamples=10, seed=0)
    found = compare_models(large, champion, champion, resamples=10, seed=0, features=cached)
    # Pillow blurs the edges a little when it shrinks the photos.
    np.testing.assert_allclose(found.champion.logits, expected.champion.logits, atol=0.05)
