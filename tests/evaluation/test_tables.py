from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from phototag.base.files import write_table
from phototag.dataset.dataset import Dataset
from phototag.dataset.targets import UNKNOWN
from phototag.evaluation import tables
from phototag.evaluation.calibration import fit_temperature
from phototag.evaluation.params import EvaluateParams
from phototag.evaluation.result import evaluate, headline, operating_point
from phototag.evaluation.thresholds import RESAMPLES, Thresholds, fit_thresholds
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.losses import binary_cross_entropy, sigmoid

RNG = np.random.default_rng(0)
TARGETS = (RNG.random((60, 4)) < (0.3, 0.5, 0.1, 0.0)).astype(np.uint8)
TRAIN = (RNG.random((90, 4)) < (0.3, 0.6, 0.1, 0.1)).astype(np.uint8)
LOGITS = RNG.normal(size=(60, 4)) + TARGETS
CUTS = np.array([0.4, 0.6, 0.3, 0.5])
THRESHOLDS = Thresholds(CUTS, CUTS - 0.1, CUTS + 0.1)
WEIGHTS = bootstrap_weights(60, 100, seed=0)
PARAMS = EvaluateParams(prior_strength=2.0, calibrate=False, resamples=50)


@pytest.fixture
def logits(datasets: dict[str, Dataset]) -> dict[str, np.ndarray]:
    """Overconfident logits of val and test."""
    rng = np.random.default_rng(1)
    return {
        split: 3 * rng.normal(2.0 * datasets[split].targets - 1, 1.5) for split in ("val", "test")
    }


@pytest.fixture
def manifest() -> pd.DataFrame:
    return pd.DataFrame({"width": [16] * 40, "height": [16] * 40})


def test_headline_equals_scikit_learn() -> None:
    table = tables.tabulate_scores(TRAIN, TARGETS, LOGITS, CUTS, WEIGHTS)
    probabilities = sigmoid(LOGITS)
    tuned, half = probabilities >= CUTS, probabilities >= 0.5
    expected = {
        "loss": np.mean([sk.log_loss(t, p, labels=[0, 1])
                         for t, p in zip(TARGETS.T, probabilities.T, strict=True)]),
        "f1_micro": sk.f1_score(TARGETS, tuned, average="micro"),
        "f1_macro": sk.f1_score(TARGETS, tuned, average="macro", zero_division=0),
        "mAP": sk.average_precision_score(TARGETS[:, :3], probabilities[:, :3]),
    }  # fmt: skip
    others = {
        ("model", "f1_samples"): sk.f1_score(TARGETS, tuned, average="samples", zero_division=0),
        ("model at 0.5", "f1_micro"): sk.f1_score(TARGETS, half, average="micro"),
        ("model at 0.5", "f1_macro"): sk.f1_score(TARGETS, half, average="macro", zero_division=0),
    }
    values = table.set_index(["predictor", "metric"])["value"]
    assert values[list(others)].to_dict() == pytest.approx(others, rel=1e-7)
    found = headline(table)
    # The values have 8 significant digits.
    assert found == pytest.approx(expected, rel=1e-7)
    assert any(value != round(value, 4) for value in found.values())
    assert list(found) == list(expected)


def test_baselines_use_the_targets_of_train_only() -> None:
    table = tables.tabulate_scores(TRAIN, TARGETS, LOGITS, CUTS, WEIGHTS)
    rows = table.set_index(["predictor", "metric"])
    frequencies = np.broadcast_to(TRAIN.mean(axis=0), TARGETS.shape)
    loss = binary_cross_entropy(TARGETS, np.log(frequencies / (1 - frequencies)))
    assert rows["value"]["label frequencies", "loss"] == pytest.approx(loss)
    assert rows["value"]["model", "loss_skill"] == pytest.approx(
        1 - rows["value"]["model", "loss"] / loss
    )
    most_frequent = np.zeros_like(TARGETS)
    most_frequent[:, 1] = 1
    assert rows["value"]["most frequent label", "f1_micro"] == pytest.approx(
        sk.f1_score(TARGETS, most_frequent, average="micro")
    )
    assert ("most frequent label", "loss") not in rows.index
    inside = (rows["low"] <= rows["value"]) & (rows["value"] <= rows["high"])
    assert inside.mean() > 0.9


def test_label_table_equals_scikit_learn() -> None:
    table = tables.tabulate_labels(list("abcd"), TARGETS, LOGITS, THRESHOLDS, WEIGHTS)
    probabilities = sigmoid(LOGITS)
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        TARGETS, probabilities >= CUTS, zero_division=0
    )
    assert table["support"].tolist() == support.tolist()
    for column, expected in (("precision", precision), ("recall", recall), ("f1", f1)):
        np.testing.assert_allclose(table[column], expected, atol=1e-12)
    for column, function in (
        ("average_precision", sk.average_precision_score),
        ("auroc", sk.roc_auc_score),
    ):
        expected = [function(TARGETS[:, i], probabilities[:, i]) for i in range(3)]
        np.testing.assert_allclose(table[column], [*expected, np.nan], atol=1e-12)
    assert table["prevalence"].tolist() == TARGETS.mean(axis=0).tolist()
    assert (table["f1_low"] <= table["f1"]).all()
    assert table["threshold_high"].tolist() == (CUTS + 0.1).tolist()


def test_thresholds_are_chosen_on_val_and_scores_computed_on_test(
    datasets: dict[str, Dataset], logits: dict[str, np.ndarray], manifest: pd.DataFrame
) -> None:
    result = evaluate(datasets, logits, manifest, PARAMS, seed=0)
    other_test = logits | {"test": -logits["test"]}
    again = evaluate(datasets, other_test, manifest, PARAMS, seed=0)
    assert result.thresholds.values.tolist() == again.thresholds.values.tolist()
    assert result.split == "test"
    assert headline(result.tables["scores"]) != headline(again.tables["scores"])
    point = operating_point(result, "key")
    assert point["content_key"] == "key"
    assert point["temperature"] == 1
    assert list(point["thresholds"]) == ["blue", "green", "red"]


def test_val_is_evaluated_without_a_test_split(
    datasets: dict[str, Dataset], logits: dict[str, np.ndarray], manifest: pd.DataFrame
) -> None:
    only = {"val": logits["val"]}
    result = evaluate(datasets, only, manifest, PARAMS, seed=0)
    assert result.split == "val"
    assert set(result.tables["predictions"]["split"]) == {"val"}


def test_calibrate_divides_the_logits(
    datasets: dict[str, Dataset], logits: dict[str, np.ndarray], manifest: pd.DataFrame
) -> None:
    plain = evaluate(datasets, logits, manifest, PARAMS, seed=0)
    params = PARAMS.model_copy(update={"calibrate": True})
    result = evaluate(datasets, logits, manifest, params, seed=0)
    temperature = plain.temperature
    assert result.temperature == temperature != 1
    assert operating_point(result, "key")["temperature"] == temperature
    np.testing.assert_allclose(result.logits["test"], logits["test"] / temperature)
    losses = [
        binary_cross_entropy(datasets["val"].targets, r.logits["val"]) for r in (plain, result)
    ]
    assert losses[1] < losses[0]


def test_predictions_have_one_row_per_photo_and_label(
    datasets: dict[str, Dataset], logits: dict[str, np.ndarray], manifest: pd.DataFrame
) -> None:
    result = evaluate(datasets, logits, manifest, PARAMS, seed=0)
    table, test = result.tables["predictions"], datasets["test"]
    assert list(table.columns) == ["image", "split", "label", "target", "probability", "predicted"]
    assert len(table) == 16 * 3
    row = table.iloc[8 * 3 + 5 * 3 + 1]
    assert (row["split"], row["image"], row["label"]) == ("test", test.files[5], "green")
    assert row["target"] == test.targets[5, 1]
    assert row["probability"] == pytest.approx(1 / (1 + np.exp(-logits["test"][5, 1])))
    assert row["predicted"] == (row["probability"] >= result.thresholds.values[1])


def test_label_errors_of_both_splits_are_listed(
    datasets: dict[str, Dataset], logits: dict[str, np.ndarray], manifest: pd.DataFrame
) -> None:
    # The model contradicts one label in each split with confidence.
    confident = {split: 8.0 * datasets[split].targets - 4 for split in ("val", "test")}
    for split, place in (("val", (2, 0)), ("test", (3, 1))):
        confident[split][place] *= -1.5
    table = evaluate(datasets, confident, manifest, PARAMS, seed=0).tables["label_errors"]
    found = set(zip(table["split"], table["image"], table["label"], strict=True))
    assert found == {
        ("val", datasets["val"].files[2], "blue"),
        ("test", datasets["test"].files[3], "green"),
    }


def test_recall_of_the_curve_increases_to_one() -> None:
    table = tables.tabulate_curve(TARGETS, LOGITS)
    assert len(table) <= tables.CURVE_POINTS
    assert table["recall"].is_monotonic_increasing
    assert table["recall"].iloc[-1] == 1
    cut = 1 / (1 + np.exp(-LOGITS.ravel())) >= table["threshold"].iloc[100]
    assert table["precision"].iloc[100] == pytest.approx(sk.precision_score(TARGETS.ravel(), cut))


def test_cooccurrence_contains_the_most_frequent_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_LABELS", 2)
    targets = np.array([[1, 1, 0], [0, 0, 1], [0, 1, 1], [0, 0, 0]], np.uint8)
    predicted = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0]], np.uint8)
    table = tables.tabulate_cooccurrence(list("abc"), targets, predicted)
    # The second photo is predicted to have the label a, which is left out.
    assert table.to_numpy().tolist() == [["b", "b"], ["b", "c"], ["c", "c"], ["(none)", "(none)"]]


def test_labels_without_positives_are_sorted_last() -> None:
    # The sums must be signed: with uint8, the negative of 0 would be the smallest.
    targets = np.zeros((6, 5), np.uint8)
    targets[:2, 1] = targets[:4, 3] = targets[3:5, 4] = 1
    assert tables.sort_labels(targets).tolist() == [3, 1, 4, 0, 2]


def test_groups_are_resampled_whole(
    datasets: dict[str, Dataset], logits: dict[str, np.ndarray], manifest: pd.DataFrame
) -> None:
    """If each photo is a group of two copies, the intervals are those of the single photos."""
    twice, doubled = {}, {}
    for split, dataset in datasets.items():
        chosen = np.repeat(np.arange(len(dataset)), 2)
        twice[split] = replace(
            dataset,
            rows=dataset.rows[chosen],
            targets=dataset.targets[chosen],
            files=[f"{dataset.files[photo]}-{place % 2}" for place, photo in enumerate(chosen)],
            sha256=[dataset.sha256[photo] for photo in chosen],
            groups=[dataset.files[photo] for photo in chosen],
        )
        if split in logits:
            doubled[split] = np.repeat(logits[split], 2, axis=0)
    params = PARAMS.model_copy(update={"prior_strength": 0.0})
    single = evaluate(datasets, logits, manifest, params, seed=0)
    found = evaluate(twice, doubled, manifest, params, seed=0)
    np.testing.assert_allclose(found.thresholds.values, single.thresholds.values)
    np.testing.assert_allclose(found.thresholds.low, single.thresholds.low)
    for name, columns in (
        ("scores", ["value", "low", "high"]),
        ("per_label", ["f1", "f1_low", "f1_high"]),
    ):
        ours, theirs = (result.tables[name] for result in (found, single))
        np.testing.assert_allclose(ours[columns], theirs[columns], atol=1e-12, err_msg=name)


def test_thresholds_and_temperature_use_out_of_fold_logits(
    datasets: dict[str, Dataset], logits: dict[str, np.ndarray], manifest: pd.DataFrame
) -> None:
    train, val = datasets["train"], datasets["val"]
    targets = np.concatenate([train.targets, val.targets])
    logit = np.random.default_rng(2).normal(2.0 * targets - 1, 1.5)
    plain = evaluate(datasets, logits, manifest, PARAMS, 0)
    params = PARAMS.model_copy(update={"calibrate": True})
    both = evaluate(datasets, logits, manifest, params, 0, logit)
    expected = fit_thresholds(
        targets,
        sigmoid(logit / both.temperature),
        PARAMS.prior_strength,
        bootstrap_weights(len(targets), RESAMPLES, 0),
    )
    assert both.thresholds.values.tolist() == expected.values.tolist()
    assert plain.temperature == fit_temperature(val.targets, logits["val"])
    assert both.temperature == fit_temperature(targets, logit)
    assert plain.thresholds.chosen_on == "val"
    assert both.thresholds.chosen_on == "train and val, with out-of-fold predictions"
    assert list(both.logits) == ["val", "test"]


def test_tables_state_the_number_of_known_entries(
    partly: dict[str, Dataset],
    logits: dict[str, np.ndarray],
    manifest: pd.DataFrame,
    tmp_path: Path,
) -> None:
    result = evaluate(partly, logits, manifest, PARAMS, seed=0)
    targets = partly["test"].targets
    known, probabilities = targets != UNKNOWN, sigmoid(result.logits["test"])
    predicted = probabilities >= result.thresholds.values
    assert (result.tables["scores"]["known"] == known.sum()).all()
    assert headline(result.tables["scores"])["known"] == known.sum()
    assert headline(result.tables["scores"])["f1_micro"] == pytest.approx(
        sk.f1_score(targets[known], predicted[known]), rel=1e-7
    )
    labels = result.tables["per_label"]
    assert labels["known"].tolist() == known.sum(axis=0).tolist()
    assert labels["support"].tolist() == (targets == 1).sum(axis=0).tolist()
    for row, column, chosen in zip(labels.itertuples(), targets.T, known.T, strict=True):
        assert row.prevalence == pytest.approx(column[chosen].mean())
    slices = result.tables["slices"].query("slice == 'brightness'")
    assert slices["known"].sum() == known.sum()

    write_table(tmp_path / "predictions.csv", result.tables["predictions"])
    read = pd.read_csv(tmp_path / "predictions.csv", dtype=str, keep_default_na=False)
    cells = read.loc[read["split"] == "test", "target"].to_numpy().reshape(targets.shape)
    assert np.array_equal(cells, np.where(known, targets.astype(str), ""))
    curve = result.tables["pr_curve"].iloc[0]
    cut = probabilities[known] >= curve["threshold"]
    assert curve["recall"] == pytest.approx(sk.recall_score(targets[known], cut))
    assert curve["precision"] == pytest.approx(sk.precision_score(targets[known], cut))


def test_cooccurrence_ignores_unknown_entries() -> None:
    targets = np.array([[1, UNKNOWN, 0], [UNKNOWN] * 3, [0, 0, UNKNOWN], [0, UNKNOWN, 1]], np.int8)
    predicted = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1], [0, 1, 0]], np.uint8)
    table = tables.tabulate_cooccurrence(list("abc"), targets, predicted)
    assert table.to_numpy().tolist() == [["a", "a"], ["(none)", "b"], ["c", "(none)"]]
