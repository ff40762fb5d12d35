from typing import Literal

import numpy as np
import pytest
from sklearn import metrics as sk

from phototag.dataset.targets import UNKNOWN
from phototag.metrics.classification import classification_scores, f1_score, label_scores
from tests.metrics.cases import make_case, make_partly_known_case, resample

FUNCTIONS = {"f1": sk.f1_score, "precision": sk.precision_score, "recall": sk.recall_score}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("average", ["micro", "macro"])
def test_f1_equals_scikit_learn(seed: int, average: Literal["micro", "macro"]) -> None:
    rng = np.random.default_rng(seed)
    targets = (rng.random((60, 7)) < rng.random(7) * 0.6).astype(np.uint8)
    predicted = (rng.random(targets.shape) < 0.3).astype(np.uint8)
    targets[:, 2] = 0  # predictions, but no positives
    predicted[:, 3] = 0  # positives, but no predictions
    targets[:, 4] = predicted[:, 4] = 0  # neither
    expected = sk.f1_score(targets, predicted, average=average, zero_division=0)
    assert f1_score(targets, predicted, average) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_every_resample_equal_scikit_learn(seed: int) -> None:
    targets, logits, weights = make_case(seed)
    predicted = logits >= 0.5
    found = classification_scores(targets, predicted, weights)
    per_label = label_scores(targets, predicted, weights)
    for index, row in enumerate(weights):
        truth, chosen = resample(row, targets, predicted)
        expected = {
            f"{name}_{average}": function(truth, chosen, average=average, zero_division=0)
            for name, function in FUNCTIONS.items()
            for average in ("micro", "macro")
        }
        expected["f1_samples"] = sk.f1_score(truth, chosen, average="samples", zero_division=0)
        expected["subset_accuracy"] = sk.accuracy_score(truth, chosen)
        unlabelled = ~truth.any(axis=1)
        expected["unlabelled_accuracy"] = (~chosen[unlabelled].any(axis=1)).mean()
        values = {name: column[index] for name, column in found.items()}
        assert values == pytest.approx(expected, abs=1e-12)
        for column, function in zip(per_label, FUNCTIONS.values(), strict=True):
            wanted = function(truth, chosen, average=None, zero_division=0)
            np.testing.assert_allclose(column[index], wanted, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_known_entries_equal_scikit_learn(seed: int) -> None:
    targets, logits, weights = make_partly_known_case(seed)
    predicted = logits >= 0.5
    found = classification_scores(targets, predicted, weights)
    per_label = label_scores(targets, predicted, weights)
    for index, row in enumerate(weights):
        truth, chosen = resample(row, targets, predicted)
        known = truth != UNKNOWN
        labels = [(t[k], c[k]) for t, c, k in zip(truth.T, chosen.T, known.T, strict=True)]
        photos = [(t[k], c[k]) for t, c, k in zip(truth, chosen, known, strict=True) if k.any()]
        expected = {
            "subset_accuracy": np.mean([(t == c).all() for t, c in photos]),
            "f1_samples": np.mean([sk.f1_score(t, c, zero_division=0) for t, c in photos]),
            "unlabelled_accuracy": np.mean(
                [not c.any() for t, c in zip(truth, chosen, strict=True) if (t == 0).all()]
            ),
        }
        for column, (name, function) in enumerate(FUNCTIONS.items()):
            by_label = [function(t, c, zero_division=0) for t, c in labels]
            expected |= {
                f"{name}_micro": function(truth[known], chosen[known]),
                f"{name}_macro": np.mean(by_label),
            }
            np.testing.assert_allclose(per_label[column][index], by_label, atol=1e-12)
        values = {name: column[index] for name, column in found.items()}
        assert values == pytest.approx(expected, abs=1e-12)
    assert f1_score(targets, predicted, "micro") == pytest.approx(found["f1_micro"][0])
    assert f1_score(targets, predicted, "macro") == pytest.approx(found["f1_macro"][0])


def test_predictions_of_unknown_entries_change_no_score() -> None:
    targets, logits, weights = make_partly_known_case(0)
    other = np.where(targets == UNKNOWN, -logits, logits)
    first, second = (
        classification_scores(targets, values >= 0.5, weights) for values in (logits, other)
    )
    np.testing.assert_equal(first, second)


def test_unlabelled_accuracy_is_nan_if_every_photo_has_a_label() -> None:
    ones = np.ones((4, 2), np.uint8)
    found = classification_scores(ones, ones, np.ones((1, 4)))
    assert np.isnan(found["unlabelled_accuracy"]).all()
