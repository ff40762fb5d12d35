"""The rule by which a challenger wins, by simulation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom
from scipy.stats import t as student
from sklearn.metrics import f1_score

from phototag.dataset.dataset import Dataset, take_photos
from phototag.dataset.targets import UNKNOWN
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.registry.comparison import (
    ALPHA,
    bound_difference,
    compare_models,
    coverage,
    judge,
    level,
)
from tests.models import make_model

REPETITIONS, CHALLENGERS, PHOTOS, LABELS = 30, 200, 100, 5


def count_false_wins(number_of: int | None, albums: int = 0) -> int:
    """Count the repetitions in which one of many equal challengers beats the champion.

    Args:
        number_of: What is taken for each challenge's number; None takes the true one.
        albums: Photos of one album, which are all alike; 0 has single photos.
    """
    false, alike = 0, albums or 1
    for repetition in range(REPETITIONS):
        rng = np.random.default_rng(repetition)
        shape = (CHALLENGERS + 1, PHOTOS // alike, LABELS)
        truth = rng.random(shape[1:]) < 0.3
        predicted = truth ^ (rng.random(shape) < 0.2)  # each errs in a fifth of all decisions
        truth, predicted = (np.repeat(part, alike, axis=-2) for part in (truth, predicted))
        groups = [str(photo // alike) for photo in range(truth.shape[0])]
        weights = bootstrap_weights(len(groups), 100, repetition, groups)
        right, said = (weights @ part.sum(axis=2).T for part in (predicted & truth, predicted))
        f1 = 2 * right / (said + (weights @ truth.sum(axis=1))[:, None])
        differences = (f1[:, 1:] - f1[:, :1]).T
        lows = [
            bound_difference(each, len(set(groups)), number_of or number)[0]
            for number, each in enumerate(differences, start=1)
        ]
        false += max(lows) > 0
    return false


@pytest.mark.parametrize("albums", [0, 5])
def test_of_200_equal_challengers_hardly_one_wins(albums: int) -> None:
    # So many or more in one of 1 000 cases, if the chance of any is ALPHA.
    assert count_false_wins(None, albums) <= binom.ppf(0.999, REPETITIONS, ALPHA)


def test_by_the_rule_of_a_single_challenge_one_of_200_wins_far_too_often() -> None:
    assert count_false_wins(1) > binom.ppf(1 - 1e-9, REPETITIONS, ALPHA)


def test_levels_sum_to_what_is_stated() -> None:
    assert level(1) == ALPHA / 2
    total = sum(level(number) for number in range(1, 100_001))
    assert total == pytest.approx(ALPHA, rel=2e-5)
    assert total < ALPHA
    assert [coverage(1), coverage(2)] == ["97.5%", "99.1667%"]


def test_a_clear_lead_still_wins_after_many_challenges() -> None:
    rng = np.random.default_rng(0)
    differences = np.append(0.05, 0.05 + 0.005 * rng.standard_normal(1000))
    low, high = bound_difference(differences, 400, 100)
    assert 0 < low < 0.05 < high
    half = student.ppf(1 - level(100), 399) * differences[1:].std(ddof=1)
    assert (low, high) == pytest.approx((0.05 - half, 0.05 + half))


def test_few_photos_tell_nothing() -> None:
    # Six that all speak for one model are a chance of 1 in 64, over 1.25 %.
    sure = np.full(101, 0.5)
    assert np.isnan(bound_difference(sure, 6, 1)).all()
    assert bound_difference(sure, 7, 1) == (0.5, 0.5)
    assert np.isnan(bound_difference(sure[:1], 400, 1)).all()


def test_only_what_is_known_decides(datasets: dict[str, Dataset], tmp_path: Path) -> None:
    """Of five photos nothing is known; scikit-learn has the known entries of the others."""
    judged, rng = datasets["train"], np.random.default_rng(0)
    known = rng.random(judged.targets.shape) < 0.6
    known[:5] = False
    partly = replace(judged, targets=np.where(known, judged.targets, UNKNOWN))
    rest = take_photos(partly, np.arange(5, 24))
    files = make_model(tmp_path / "new", 3), make_model(tmp_path / "old", 1)
    found = compare_models(partly, *files, resamples=50, seed=0)
    assert found.equals(compare_models(rest, *files, resamples=50, seed=0))
    assert (found["known"] == known.sum()).all()
    row = found.set_index("metric").loc["f1_micro"]
    truth = judged.targets[known]
    for name, labels in (("challenger", 3), ("champion", 1)):
        # A model gives what is true of the labels that it knows.
        given = (judged.targets * (np.arange(3) < labels))[known]
        assert row[name] == pytest.approx(f1_score(truth, given))
    wins, reason = judge(found)
    assert wins
    assert f"on the same photos, of {known.sum()} known entries (challenge 1" in reason
    assert "known" not in compare_models(judged, *files, resamples=2, seed=0)
