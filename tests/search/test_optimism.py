from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, log_loss

from phototag.search.optimism import Predictions, estimate_optimism, score

PHOTOS, LABELS = 120, 4


def predict(skill: float, noise: int, photos: int = PHOTOS) -> Predictions:
    """Return predictions of a model; all models have the same targets, each has its own noise."""
    targets = (np.random.default_rng(7).random((photos, LABELS)) < 0.3).astype(np.uint8)
    drawn = np.random.default_rng([9, noise]).normal(size=targets.shape)
    logits = skill * (2.0 * targets - 1) + drawn
    return Predictions(logits, targets, np.arange(photos).astype(str))


def estimate(trials: Sequence[Predictions], objective: str = "val_loss") -> float:
    found = estimate_optimism([[trial] for trial in trials], objective, 0)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_scores_are_those_of_scikit_learn() -> None:
    own, photos = predict(1, 0), np.arange(50)
    weights = np.zeros((1, PHOTOS))
    weights[0, photos] = 1
    targets, logits = own.targets[photos], own.logits[photos]
    probabilities = 1 / (1 + np.exp(-logits))
    expected = {
        "val_loss": log_loss(targets.ravel(), probabilities.ravel()),
        "mAP": average_precision_score(targets, logits, average="macro"),
        "f1_macro": f1_score(targets, logits >= 0, average="macro"),
    }
    for objective, value in expected.items():
        assert score(own, weights, objective) == pytest.approx(value)  # type: ignore[arg-type]


def test_optimism_grows_with_the_number_of_equal_trials() -> None:
    equals = [predict(0.5, number) for number in range(40)]
    few, many = estimate(equals[:3]), estimate(equals)
    assert many > few
    # The winner's score on val, corrected by the optimism, is closer to its score on new photos.
    large = [predict(0.5, number, 20_000) for number in range(3)]
    truth = np.mean([score(own, np.ones((1, 20_000)), "val_loss") for own in large])
    chosen = min(score(own, np.ones((1, PHOTOS)), "val_loss")[0] for own in equals)
    assert abs(chosen + many - truth) < abs(chosen - truth)


@pytest.mark.parametrize("objective", ["val_loss", "mAP", "f1_macro"])
def test_optimism_is_small_if_one_trial_is_much_better(objective: str) -> None:
    equals = [predict(0.5, number) for number in range(10)]
    assert estimate([*equals, predict(3, 99)], objective) < estimate(equals, objective)


@pytest.mark.parametrize("objective", ["val_loss", "mAP", "f1_macro"])
def test_equal_trials_have_no_optimism(objective: str) -> None:
    assert estimate([predict(0.5, 0, 15)] * 2, objective) == 0


@pytest.mark.parametrize("objective", ["mAP", "f1_macro"])
def test_a_label_that_only_one_side_can_score_is_ignored(objective: str) -> None:
    trials = [predict(0.5, number) for number in range(10)]
    rare = np.arange(PHOTOS)[:, None] == 0  # the only positive is drawn, or it is left out
    more = [
        Predictions(
            np.hstack([own.logits, np.where(rare, 1, -1)]),
            np.hstack([own.targets, rare]).astype(np.uint8),
            own.groups,
        )
        for own in trials
    ]
    assert estimate(more, objective) == pytest.approx(estimate(trials, objective))


def test_too_few_trials_or_groups_give_no_estimate() -> None:
    assert estimate_optimism([], "val_loss", 0) is None
    assert estimate_optimism([[predict(1, 0)]], "val_loss", 0) is None
    groups = np.full(PHOTOS, "album")
    alone = [Predictions(own.logits, own.targets, groups) for own in (predict(1, 0), predict(1, 1))]
    assert estimate_optimism([[trial] for trial in alone], "val_loss", 0) is None
