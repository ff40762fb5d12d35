import numpy as np
import pytest
from sklearn import metrics as sk

from phototag import evaluation
from phototag.dataset import Dataset

RNG = np.random.default_rng(0)
TARGETS = (RNG.random((60, 4)) < (0.3, 0.5, 0.1, 0.0)).astype(np.uint8)
LOGITS = RNG.normal(size=(60, 4)) + TARGETS
THRESHOLDS = np.array([0.4, 0.6, 0.3, 0.5])


def test_sigmoid_is_right_at_the_ends() -> None:
    logits = np.array([-1000, -2.0, 0, 2.0, 1000], np.float32)
    expected = [0, 1 / (1 + np.exp(2)), 0.5, 1 / (1 + np.exp(-2)), 1]
    np.testing.assert_allclose(evaluation.sigmoid(logits), expected, atol=1e-12)


def test_scores_equal_scikit_learn() -> None:
    probabilities = 1 / (1 + np.exp(-LOGITS))
    tuned, half = probabilities >= THRESHOLDS, probabilities >= 0.5
    known = TARGETS[:, :3]
    expected = {
        "loss": np.mean([sk.log_loss(t, p, labels=[0, 1])
                         for t, p in zip(TARGETS.T, probabilities.T, strict=True)]),
        "f1_micro": sk.f1_score(TARGETS, tuned, average="micro"),
        "f1_macro": sk.f1_score(TARGETS, tuned, average="macro", zero_division=0),
        "f1_samples": sk.f1_score(TARGETS, tuned, average="samples", zero_division=0),
        "mAP": sk.average_precision_score(known, probabilities[:, :3]),
        "f1_micro_at_0.5": sk.f1_score(TARGETS, half, average="micro"),
        "f1_macro_at_0.5": sk.f1_score(TARGETS, half, average="macro", zero_division=0),
    }  # fmt: skip
    scores = evaluation.score(TARGETS, LOGITS, THRESHOLDS)
    assert scores == pytest.approx(expected, abs=1e-9)
    assert list(scores) == list(expected)


def test_label_table() -> None:
    table = evaluation.tabulate_labels(list("abcd"), TARGETS, LOGITS, THRESHOLDS)
    assert table["support"].tolist() == TARGETS.sum(axis=0).tolist()
    assert table["threshold"].tolist() == THRESHOLDS.tolist()
    assert np.isnan(table["average_precision"].iloc[3])
    assert table[["precision", "recall", "f1"]].to_numpy()[3].tolist() == [0, 0, 0]


def test_prediction_table_is_long(datasets: dict[str, Dataset]) -> None:
    logits = {split: RNG.normal(size=datasets[split].targets.shape) for split in ("val", "test")}
    table = evaluation.tabulate_predictions(datasets, logits, THRESHOLDS[:3])
    assert list(table.columns) == ["image", "split", "label", "target", "probability", "predicted"]
    assert len(table) == 16 * 3
    test = datasets["test"]
    row = table.iloc[8 * 3 + 5 * 3 + 1]
    assert (row["split"], row["image"]) == ("test", test.files[5])
    assert row["label"] == "green"
    assert row["target"] == test.targets[5, 1]
    assert row["probability"] == pytest.approx(1 / (1 + np.exp(-logits["test"][5, 1])))
    assert row["predicted"] == (row["probability"] >= 0.6)


def test_curve_rises_in_recall_and_ends_at_one() -> None:
    table = evaluation.tabulate_curve(TARGETS, LOGITS)
    assert len(table) <= evaluation.CURVE_POINTS
    assert table["recall"].is_monotonic_increasing
    assert table["recall"].iloc[-1] == 1
    cut = 1 / (1 + np.exp(-LOGITS.ravel())) >= table["threshold"].iloc[100]
    assert table["precision"].iloc[100] == pytest.approx(sk.precision_score(TARGETS.ravel(), cut))
