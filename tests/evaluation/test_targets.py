import numpy as np
import pytest
from scipy.stats import binomtest

from phototag.dataset.dataset import Dataset
from phototag.dataset.targets import UNKNOWN
from phototag.evaluation.params import F1, EvaluateParams, Target
from phototag.evaluation.targets import ABSTAIN, fit_target, lower_bound
from phototag.evaluation.thresholds import choose_thresholds
from phototag.metrics.bootstrap import effective_groups

PRECISION, RECALL = Target(precision=0.8), Target(recall=0.8)


def draw(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and calibrated probabilities."""
    rng = np.random.default_rng(seed)
    probabilities = rng.random(number)
    return (rng.random(number) < probabilities).astype(np.int8), probabilities


def true_value(target: Target, threshold: float) -> float:
    """Return the precision or recall at a threshold on an infinite number of drawn photos."""
    hits = (1 - threshold**2) / 2
    return hits / (1 - threshold) if target.precision else hits / 0.5


def exact_bound(hits: int, number: int) -> float:
    return float(binomtest(hits, number).proportion_ci(0.9, "exact").low)


@pytest.mark.parametrize(("hits", "number"), [(0, 4), (1, 1), (59, 59), (90, 100), (3, 1000)])
def test_bound_is_that_of_clopper_and_pearson(hits: int, number: int) -> None:
    bound = lower_bound(np.array([hits / number]), np.array([number]))
    assert bound == pytest.approx(exact_bound(hits, number))


@pytest.mark.parametrize("target", [PRECISION, RECALL], ids=str)
def test_true_value_is_below_the_target_in_at_most_5_percent(target: Target) -> None:
    found = np.array([fit_target(*draw(seed, 300), [], target) for seed in range(400)])
    chosen = found[found != ABSTAIN]
    assert len(chosen) > 250
    kept = np.mean([true_value(target, threshold) >= 0.8 for threshold in chosen])
    assert kept > 0.95 - 2 * np.sqrt(0.05 * 0.95 / len(chosen))
    # The bound is not needlessly low: without it, most chosen thresholds would be near 0.6 or 0.45.
    assert 0.8 <= np.median([true_value(target, threshold) for threshold in chosen]) < 0.9


def test_more_photos_lower_the_threshold_towards_the_best_one() -> None:
    found = [fit_target(*draw(0, number), [], PRECISION) for number in (50, 1000, 30000)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(0.6, abs=0.03)  # precision (1 + 0.6) / 2


def test_threshold_for_recall_is_the_highest_that_passes() -> None:
    targets, probabilities = draw(3, 200)
    positives = np.sort(probabilities[targets == 1])[::-1]
    passing = [
        value
        for value in positives
        if exact_bound(int((positives >= value).sum()), len(positives)) >= 0.8
    ]
    lower = probabilities[probabilities < max(passing)].max()
    assert fit_target(targets, probabilities, [], RECALL) == (max(passing) + lower) / 2


@pytest.mark.parametrize("target", [PRECISION, RECALL], ids=str)
def test_copies_of_a_photo_count_once_and_unknown_entries_not_at_all(target: Target) -> None:
    targets, probabilities = draw(4, 300)
    expected = fit_target(targets, probabilities, [], target)
    assert expected != ABSTAIN
    twice = [np.repeat(values, 2) for values in (targets, probabilities)]
    names = [f"photo {place // 2}" for place in range(600)]
    assert fit_target(twice[0], twice[1], names, target) == expected
    assert fit_target(twice[0], twice[1], [], target) != expected
    unknown = np.append(targets, [UNKNOWN] * 9), np.append(probabilities, np.linspace(0, 1, 9))
    assert fit_target(*unknown, [], target) == expected
    assert fit_target(targets, probabilities, ["album"] * 300, target) == ABSTAIN


@pytest.mark.parametrize("target", [PRECISION, RECALL], ids=str)
@pytest.mark.parametrize("value", [0, 1, UNKNOWN])
@pytest.mark.parametrize("number", [0, 1, 13, 14])
def test_few_or_equal_targets(target: Target, value: int, number: int) -> None:
    """Of 13 photos, even 13 hits do not show a precision or recall of 0.8 (0.8^13 > 5 %)."""
    targets = np.full(number, value, np.int8)
    found = fit_target(targets, np.full(number, 0.5), [], target)
    assert found == (0.25 if value == 1 and number == 14 else ABSTAIN)


def test_each_label_has_its_own_target() -> None:
    columns = [draw(seed, 300) for seed in range(3)]
    targets, probabilities = (np.stack(parts, axis=1) for parts in zip(*columns, strict=True))
    names = [f"{number}.jpg" for number in range(300)]
    photos = Dataset(np.zeros((300, 1)), np.arange(300), targets, list("abc"), names, names)
    logits = np.log(probabilities / (1 - probabilities))
    values = {"prior_strength": 10, "calibrate": False, "resamples": 50}
    plain = choose_thresholds(photos, logits, "val", EvaluateParams.model_validate(values), 0)
    params = EvaluateParams.model_validate(
        values | {"target": {"b": {"precision": 0.999}, "c": {"recall": 0.8}}}
    )
    found = choose_thresholds(photos, logits, "val", params, 0)
    assert plain.targets == ()
    assert found.targets == [F1, Target(precision=0.999), RECALL]
    expected = fit_target(targets[:, 2], probabilities[:, 2], [], RECALL)
    assert found.values == pytest.approx([plain.values[0], ABSTAIN, expected])
    assert found.best_f1.tolist() == plain.values.tolist()
    assert np.isnan(found.low).tolist() == [False, True, True]


def test_effective_number_of_photos_is_that_of_the_predicted_photos() -> None:
    """A threshold passes or not because of the groups of the photos above it, not of all photos."""
    targets, probabilities = np.ones(40, np.int8), np.linspace(1, 0.6, 40)
    groups = [f"own {place}" for place in range(20)] + ["album"] * 20
    # With 7 photos of the album: 27^2 / (20 + 7^2) = 10.6; exact bound of all hits: 0.05^(1/n).
    sizes = [effective_groups(groups[: n + 1]) for n in range(40)]
    bounds = [0.05 ** (1 / size) for size in sizes]
    last = max(n for n, bound in enumerate(bounds) if bound >= 0.85)
    found = fit_target(targets, probabilities, groups, Target(precision=0.85))
    assert 19 < last < 39
    assert found == pytest.approx((probabilities[last] + probabilities[last + 1]) / 2)
