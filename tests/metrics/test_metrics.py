import numpy as np
import pytest
import torch
from sklearn import metrics as oracle

from phototag.dataset.targets import UNKNOWN
from phototag.network import metrics


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("average", ["micro", "macro"])
def test_f1_equals_scikit_learn(seed: int, average: str) -> None:
    rng = np.random.default_rng(seed)
    targets = (rng.random((60, 7)) < rng.random(7) * 0.6).astype(np.uint8)
    predicted = (rng.random(targets.shape) < 0.3).astype(np.uint8)
    targets[:, 2] = 0  # no positive, some predictions
    predicted[:, 3] = 0  # positives, no prediction
    targets[:, 4] = predicted[:, 4] = 0  # neither
    expected = oracle.f1_score(targets, predicted, average=average, zero_division=0)
    assert metrics.f1_score(targets, predicted, average) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_mean_average_precision_equals_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = (rng.random((60, 7)) < 0.3).astype(np.uint8)
    logits = rng.normal(size=targets.shape).round(1)  # some are equal
    logits[:, 1] = 0  # all are
    targets[:, 3] = 1
    expected = oracle.average_precision_score(targets, logits)
    assert metrics.mean_average_precision(targets, logits) == pytest.approx(expected, abs=1e-12)
    targets[:, 2] = 0  # has none, and is left out
    expected = oracle.average_precision_score(*(np.delete(a, 2, 1) for a in (targets, logits)))
    assert metrics.mean_average_precision(targets, logits) == pytest.approx(expected, abs=1e-12)
    assert metrics.mean_average_precision(targets * 0, logits) == 0


def test_the_kept_epoch_is_the_one_that_was_noted() -> None:
    history = [
        {"epoch": 1, "val_loss": 0.2, "kept": 1},
        {"epoch": 2, "val_loss": 0.4, "kept": 2},
        {"epoch": 3, "val_loss": 0.3, "kept": 2},
    ]
    assert metrics.kept_epoch(history) == history[1]
    older = [{"epoch": record["epoch"], "val_loss": record["val_loss"]} for record in history]
    assert metrics.kept_epoch(older) == older[0]


def test_an_unknown_average_is_refused() -> None:
    with pytest.raises(ValueError, match="'weighted'"):
        metrics.f1_score(np.ones((1, 1)), np.ones((1, 1)), "weighted")


def test_sigmoid_is_right_at_the_ends() -> None:
    logits = np.array([-1000, -2.0, 0, 2.0, 1000], np.float32)
    expected = [0, 1 / (1 + np.exp(2)), 0.5, 1 / (1 + np.exp(-2)), 1]
    np.testing.assert_allclose(metrics.sigmoid(logits), expected, atol=1e-12)


def test_cross_entropy_equals_torch_and_stays_finite() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 30, (50, 6)).astype(np.float32)
    logits[0] = [1e4, -1e4, 80, -80, 0, 0]
    targets = (rng.random(logits.shape) < 0.5).astype(np.uint8)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(logits).double(), torch.from_numpy(targets).double()
    )
    assert metrics.binary_cross_entropy(targets, logits) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_not_known_counts_for_nothing(seed: int) -> None:
    """scikit-learn has the known entries alone."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((60, 7)) < 0.3).astype(np.int8)
    logits = rng.normal(size=truth.shape).round(1)
    known = rng.random(truth.shape) < 0.6
    truth[known[:, 2], 2] = 0  # what is not known may well be there
    known[:, 4] = False
    targets, predicted = np.where(known, truth, UNKNOWN), logits > 0.5
    pairs = [(truth[k, label], logits[k, label]) for label, k in enumerate(known.T)]
    f1 = [oracle.f1_score(t, x > 0.5, zero_division=0) if len(t) else 0 for t, x in pairs]
    ap = [oracle.average_precision_score(t, x) for t, x in pairs if t.any()]
    assert metrics.f1_score(targets, predicted, "macro") == pytest.approx(np.mean(f1))
    assert metrics.f1_score(targets, predicted, "micro") == pytest.approx(
        oracle.f1_score(truth[known], predicted[known])
    )
    assert metrics.mean_average_precision(targets, logits) == pytest.approx(np.mean(ap))
    assert metrics.binary_cross_entropy(targets, logits) == pytest.approx(
        oracle.log_loss(truth[known], metrics.sigmoid(logits[known]))
    )


def test_where_nothing_is_known_there_is_no_loss() -> None:
    nothing = np.full((3, 2), UNKNOWN)
    assert np.isnan(metrics.binary_cross_entropy(nothing, np.zeros((3, 2))))
