"""Every score of every resample, against scikit-learn on the photos drawn."""

import numpy as np
import pytest
from sklearn import metrics as oracle

from phototag.dataset.targets import UNKNOWN
from phototag.evaluation import scores
from phototag.metrics.metrics import sigmoid

NUM_PHOTOS, NUM_LABELS = 60, 7
Case = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(params=range(3))
def case(request: pytest.FixtureRequest) -> Case:
    """Targets, logits with many ties, and weights of five resamples."""
    rng = np.random.default_rng(request.param)
    targets = (rng.random((NUM_PHOTOS, NUM_LABELS)) < 0.3).astype(np.uint8)
    logits = rng.integers(-4, 5, targets.shape) / 2.0 + targets
    targets[:, 2] = 0
    targets[:5] = 0
    return targets, logits, scores.draw_weights(NUM_PHOTOS, 5, request.param)


def drawn(weights: np.ndarray, *tables: np.ndarray) -> list[np.ndarray]:
    rows = np.repeat(np.arange(NUM_PHOTOS), weights.astype(int))
    return [table[rows] for table in tables]


def test_decisions_equal_scikit_learn(case: Case) -> None:
    targets, logits, weights = case
    predicted = logits >= 0.5
    found = scores.score_decisions(targets, predicted, weights)
    each = scores.rate_labels(targets, predicted, weights)
    functions = {"f1": oracle.f1_score, "precision": oracle.precision_score}
    functions["recall"] = oracle.recall_score
    for resample, row in enumerate(weights):
        truth, said = drawn(row, targets, predicted)
        expected = {
            f"{name}_{average}": function(truth, said, average=average, zero_division=0)
            for name, function in functions.items()
            for average in scores.AVERAGES
        }
        expected["subset_accuracy"] = oracle.accuracy_score(truth, said)
        expected["hamming_loss"] = oracle.hamming_loss(truth, said)
        empty = ~truth.any(axis=1)
        expected["unlabelled_coverage"] = (~said[empty].any(axis=1)).mean()
        assert {name: values[resample] for name, values in found.items()} == pytest.approx(
            expected, abs=1e-12
        )
        for values, function in zip(each, functions.values(), strict=True):
            wanted = function(truth, said, average=None, zero_division=0)
            np.testing.assert_allclose(values[resample], wanted, atol=1e-12)


def test_rankings_and_losses_equal_scikit_learn(case: Case) -> None:
    targets, logits, weights = case
    probabilities = sigmoid(logits)
    found = scores.score_rankings(targets, probabilities, weights)
    found["loss"] = scores.score_losses(targets, logits, weights)
    precision, area = scores.rank_labels(targets, probabilities, weights)
    for resample, row in enumerate(weights):
        truth, given = drawn(row, targets, probabilities)
        known = truth.any(axis=0)
        expected = {
            f"{name}_{average}": function(truth[:, columns], given[:, columns], average=average)
            for name, function in (
                ("mAP", oracle.average_precision_score),
                ("AUROC", oracle.roc_auc_score),
            )
            for average, columns in (("macro", known), ("micro", slice(None)))
        }
        expected["loss"] = np.mean(
            [oracle.log_loss(t, p, labels=[0, 1]) for t, p in zip(truth.T, given.T, strict=True)]
        )
        assert {name: values[resample] for name, values in found.items()} == pytest.approx(
            expected, abs=1e-12
        )
        assert np.isnan(precision[resample, ~known]).all()
        assert np.isnan(area[resample, ~known]).all()
        assert expected["mAP_macro"] == pytest.approx(precision[resample, known].mean())


def test_first_weights_are_the_photos_as_they_are() -> None:
    weights = scores.draw_weights(10, 4, seed=0)
    assert weights.shape == (5, 10)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 10).all()
    assert (weights == scores.draw_weights(10, 4, seed=0)).all()
    assert (weights != scores.draw_weights(10, 4, seed=1)).any()


def test_interval_leaves_out_what_has_no_value_and_the_photos_as_they_are() -> None:
    values = np.append([1e9], np.append(np.arange(1001.0), [np.nan] * 50))
    assert [float(end) for end in scores.interval(values)] == [25, 975]
    assert np.isnan(scores.interval(np.full(5, np.nan))).all()


def test_bootstrap_interval_has_the_width_that_theory_gives() -> None:
    # Accuracy of independent decisions: standard error sqrt(p (1 - p) / n).
    rng = np.random.default_rng(0)
    targets = np.ones((400, 1), np.uint8)
    predicted = (rng.random((400, 1)) < 0.7).astype(np.uint8)
    weights = scores.draw_weights(400, 4000, seed=0)
    found = scores.score_decisions(targets, predicted, weights)["subset_accuracy"]
    low, high = scores.interval(found)
    share = predicted.mean()
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 400), rel=0.06)
    assert (low + high) / 2 == pytest.approx(share, abs=0.01)


def test_where_every_photo_has_a_label_silence_has_no_score() -> None:
    ones = np.ones((4, 2), np.uint8)
    found = scores.score_decisions(ones, ones, np.ones((1, 4)))
    assert np.isnan(found["unlabelled_coverage"]).all()


def test_single_photos_are_drawn_as_if_there_were_no_groups() -> None:
    names = [f"{number:016x}" for number in np.random.default_rng(0).permutation(30)]
    plain = scores.draw_weights(30, 50, seed=3)
    assert (scores.draw_weights(30, 50, seed=3, groups=names) == plain).all()


def test_groups_are_drawn_whole() -> None:
    groups = ["album", "a", "album", "b", "album", "c"]
    weights = scores.draw_weights(6, 200, seed=0, groups=groups)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 0] == weights[:, 4]).all()
    assert (weights[1:, [0, 1, 3, 5]].sum(axis=1) == 4).all()  # as many groups as there are
    assert (weights[0] == 1).all()


def test_an_interval_over_albums_is_as_wide_as_theory_says() -> None:
    # Albums of 8 photos alike: 50 independent ones, not 400, so sqrt(8) times as wide.
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(50) < 0.7, 8).astype(np.uint8)[:, None]
    groups = [str(number // 8) for number in range(400)]
    widths = []
    for given in ([], groups):
        weights = scores.draw_weights(400, 4000, 0, given)
        found = scores.score_decisions(np.ones_like(right), right, weights)["subset_accuracy"]
        low, high = scores.interval(found)
        widths.append(float(high - low))
    share = right.mean()
    assert widths[1] == pytest.approx(2 * 1.96 * np.sqrt(share * (1 - share) / 50), rel=0.08)
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(8), rel=0.08)


def test_from_one_group_nothing_can_be_drawn() -> None:
    weights = scores.draw_weights(5, 100, seed=0, groups=["album"] * 5)
    assert weights.tolist() == [[1.0] * 5]
    found = scores.score_decisions(np.ones((5, 2)), np.ones((5, 2)), weights)
    low, high = scores.interval(found["f1_micro"])
    assert np.isnan([low, high]).all()


@pytest.fixture
def partly(case: Case) -> Case:
    """The same, two fifths of the targets not known."""
    truth, logits, weights = case
    known = np.random.default_rng(9).random(truth.shape) < 0.6
    known[7] = False  # of a photo nothing is
    known[:3] = True
    return np.where(known, truth, UNKNOWN).astype(np.int8), logits, weights


def test_decisions_on_what_is_known_equal_scikit_learn(partly: Case) -> None:
    targets, logits, weights = partly
    predicted = logits >= 0.5
    found = scores.score_decisions(targets, predicted, weights)
    pooled = scores.score_pooled(targets, predicted, weights)
    each = scores.rate_labels(targets, predicted, weights)
    functions = {"f1": oracle.f1_score, "precision": oracle.precision_score}
    functions["recall"] = oracle.recall_score
    for resample, row in enumerate(weights):
        truth, said = drawn(row, targets, predicted)
        known = truth != UNKNOWN
        labels = [(t[k], s[k]) for t, s, k in zip(truth.T, said.T, known.T, strict=True)]
        photos = [(t[k], s[k]) for t, s, k in zip(truth, said, known, strict=True) if k.any()]
        support = np.array([t.sum() for t, _ in labels])
        expected = {
            "subset_accuracy": np.mean([(t == s).all() for t, s in photos]),
            "hamming_loss": oracle.zero_one_loss(truth[known], said[known]),
            "unlabelled_coverage": np.mean(
                [not s.any() for t, s in zip(truth, said, strict=True) if (t == 0).all()]
            ),
        }
        for place, (name, function) in enumerate(functions.items()):
            by_label = [function(t, s, zero_division=0) for t, s in labels]
            by_photo = [function(t, s, zero_division=0) for t, s in photos]
            expected |= {
                f"{name}_micro": function(truth[known], said[known]),
                f"{name}_macro": np.mean(by_label),
                f"{name}_weighted": by_label @ support / support.sum(),
                f"{name}_samples": np.mean(by_photo),
            }
            np.testing.assert_allclose(each[place][resample], by_label, atol=1e-12)
            assert pooled[f"{name}_micro"][resample] == pytest.approx(expected[f"{name}_micro"])
        assert {name: values[resample] for name, values in found.items()} == pytest.approx(
            expected, abs=1e-12
        )


def test_rankings_and_losses_of_what_is_known_equal_scikit_learn(partly: Case) -> None:
    targets, logits, weights = partly
    probabilities = sigmoid(logits)
    found = scores.score_rankings(targets, probabilities, weights)
    found["loss"] = scores.score_losses(targets, logits, weights)
    for resample, row in enumerate(weights):
        truth, given = drawn(row, targets, probabilities)
        known = truth != UNKNOWN
        labels = [(t[k], g[k]) for t, g, k in zip(truth.T, given.T, known.T, strict=True)]
        expected = {"loss": oracle.log_loss(truth[known], given[known])}
        for name, function in (
            ("mAP", oracle.average_precision_score),
            ("AUROC", oracle.roc_auc_score),
        ):
            expected[f"{name}_micro"] = function(truth[known], given[known])
            expected[f"{name}_macro"] = np.mean([function(t, g) for t, g in labels if t.any()])
        assert {name: values[resample] for name, values in found.items()} == pytest.approx(
            expected, abs=1e-12
        )


def test_what_is_said_where_nobody_knows_changes_no_score(partly: Case) -> None:
    targets, logits, weights = partly
    other = np.where(targets == UNKNOWN, -logits, logits)
    for score in (scores.score_losses, scores.score_decisions, scores.score_rankings):
        first, second = (
            score(targets, values >= 0.5 if score is scores.score_decisions else values, weights)
            for values in (logits, other)
        )
        np.testing.assert_equal(first, second)
