from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, log_loss

from phototag.search.optimism import SCORES, Judged, estimate_optimism

PHOTOS, LABELS = 120, 4


def judge(skill: float, noise: int, photos: int = PHOTOS) -> Judged:
    """Say what a model of some skill says: the same photos, and noise of its own."""
    targets = (np.random.default_rng(7).random((photos, LABELS)) < 0.3).astype(np.uint8)
    drawn = np.random.default_rng([9, noise]).normal(size=targets.shape)
    logits = skill * (2.0 * targets - 1) + drawn
    return Judged(logits, targets, np.arange(photos).astype(str))


def bound(trials: Sequence[Judged], objective: str = "val_loss") -> float:
    found = estimate_optimism([[trial] for trial in trials], objective, 0)  # type: ignore[arg-type]
    assert found
    assert found.low <= found.high
    assert found.trials == len(trials)
    return found.difference


def test_scores_are_scikit_learns() -> None:
    judged, photos = judge(1, 0), np.arange(50)
    targets, logits = judged.targets[:50], judged.logits[:50]
    probabilities = 1 / (1 + np.exp(-logits))
    expected = {
        "val_loss": log_loss(targets.ravel(), probabilities.ravel()),
        "mAP": average_precision_score(targets, logits, average="macro"),
        "f1_macro": f1_score(targets, logits >= 0, average="macro"),
    }
    assert {name: score(judged, photos) for name, score in SCORES.items()} == pytest.approx(
        expected
    )


def test_the_more_equals_there_are_the_more_the_best_flatters() -> None:
    equals = [judge(0.5, number) for number in range(40)]
    few, many = bound(equals[:3]), bound(equals)
    assert many > few
    # What it is for: the winner's score on photos that nobody chose by.
    everywhere = [judge(0.5, number, 20_000) for number in range(3)]
    truth = np.mean([SCORES["val_loss"](trial, np.arange(20_000)) for trial in everywhere])
    chosen = min(SCORES["val_loss"](trial, np.arange(PHOTOS)) for trial in equals)
    assert abs(chosen + many - truth) < abs(chosen - truth)


@pytest.mark.parametrize("objective", ["val_loss", "mAP", "f1_macro"])
def test_one_that_is_far_ahead_flatters_little(objective: str) -> None:
    equals = [judge(0.5, number) for number in range(10)]
    assert bound([*equals, judge(3, 99)], objective) < bound(equals, objective)


def test_too_little_gives_nothing() -> None:
    assert estimate_optimism([[judge(1, 0)]], "val_loss", 0) is None
    alone = [
        Judged(j.logits, j.targets, np.full(PHOTOS, "album")) for j in (judge(1, 0), judge(1, 1))
    ]
    assert estimate_optimism([[trial] for trial in alone], "val_loss", 0) is None
