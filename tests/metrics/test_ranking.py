import numpy as np
import pytest
from sklearn import metrics as sk

from phototag.dataset.targets import UNKNOWN
from phototag.metrics.losses import sigmoid
from phototag.metrics.ranking import (
    average_precision_and_auroc,
    mean_average_precision,
    ranking_scores,
)
from tests.metrics.cases import make_case, make_partly_known_case, resample

FUNCTIONS = {"mAP": sk.average_precision_score, "AUROC": sk.roc_auc_score}


def test_mean_average_precision_without_positives_is_zero() -> None:
    assert mean_average_precision(np.zeros((4, 2)), np.ones((4, 2))) == 0


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_every_resample_equal_scikit_learn(seed: int) -> None:
    targets, logits, weights = make_case(seed)
    probabilities = sigmoid(logits)
    found = ranking_scores(targets, probabilities, weights)
    precision, area = average_precision_and_auroc(targets, probabilities, weights)
    for index, row in enumerate(weights):
        truth, given = resample(row, targets, probabilities)
        present = truth.any(axis=0)
        expected = {
            f"{name}_{average}": function(truth[:, columns], given[:, columns], average=average)
            for name, function in FUNCTIONS.items()
            for average, columns in (("macro", present), ("micro", slice(None)))
        }
        values = {name: column[index] for name, column in found.items()}
        assert values == pytest.approx(expected, abs=1e-12)
        assert np.isnan(precision[index, ~present]).all()
        assert np.isnan(area[index, ~present]).all()
        assert expected["mAP_macro"] == pytest.approx(precision[index, present].mean())


@pytest.mark.parametrize("seed", range(3))
def test_scores_of_known_entries_equal_scikit_learn(seed: int) -> None:
    targets, logits, weights = make_partly_known_case(seed)
    probabilities = sigmoid(logits)
    found = ranking_scores(targets, probabilities, weights)
    for index, row in enumerate(weights):
        truth, given = resample(row, targets, probabilities)
        known = truth != UNKNOWN
        labels = [(t[k], g[k]) for t, g, k in zip(truth.T, given.T, known.T, strict=True)]
        expected = {}
        for name, function in FUNCTIONS.items():
            expected[f"{name}_micro"] = function(truth[known], given[known])
            expected[f"{name}_macro"] = np.mean([function(t, g) for t, g in labels if t.any()])
        values = {name: column[index] for name, column in found.items()}
        assert values == pytest.approx(expected, abs=1e-12)
    mean = mean_average_precision(targets, probabilities)
    assert mean == pytest.approx(found["mAP_macro"][0], rel=1e-12)
    other = np.where(targets == UNKNOWN, 1 - probabilities, probabilities)
    np.testing.assert_equal(ranking_scores(targets, other, weights), found)
