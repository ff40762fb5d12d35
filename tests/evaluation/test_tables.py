from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from phototag.base.files import write_table
from phototag.dataset.dataset import Dataset, join_datasets
from phototag.dataset.folds import FOLDS, assign_folds
from phototag.dataset.targets import UNKNOWN
from phototag.evaluation import tables
from phototag.evaluation.calibration import fit_temperature
from phototag.evaluation.params import EvaluateParams
from phototag.evaluation.result import Evaluation, evaluate, headline, operating_point
from phototag.evaluation.targets import describe_targets
from phototag.evaluation.thresholds import RESAMPLES, Thresholds, fit_thresholds
from phototag.metrics.bootstrap import bootstrap_weights
from phototag.metrics.losses import binary_cross_entropy, sigmoid
from phototag.metrics.ranking import average_precision_and_auroc

RNG = np.random.default_rng(0)
TARGETS = (RNG.random((60, 4)) < (0.3, 0.5, 0.1, 0.0)).astype(np.uint8)
TRAIN = (RNG.random((90, 4)) < (0.3, 0.6, 0.1, 0.1)).astype(np.uint8)
LOGITS = RNG.normal(size=(60, 4)) + TARGETS
CUTS = np.array([0.4, 0.6, 0.3, 0.5])
PREDICTED = sigmoid(LOGITS) >= CUTS
THRESHOLDS = Thresholds(CUTS, CUTS - 0.1, CUTS + 0.1, CUTS)
WEIGHTS = bootstrap_weights(60, 100, seed=0)
RANKING = average_precision_and_auroc(TARGETS, sigmoid(LOGITS), WEIGHTS)
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
    table = tables.tabulate_scores(TRAIN, TARGETS, LOGITS, PREDICTED, WEIGHTS, RANKING)
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
    table = tables.tabulate_scores(TRAIN, TARGETS, LOGITS, PREDICTED, WEIGHTS, RANKING)
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
    table = tables.tabulate_labels(
        list("abcd"), TARGETS, LOGITS, PREDICTED, THRESHOLDS, WEIGHTS, RANKING
    )
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
    resampled = [
        sk.average_precision_score(TARGETS[:, 0], probabilities[:, 0], sample_weight=row)
        for row in WEIGHTS[1:]
    ]
    bounds = table[["average_precision_low", "average_precision_high"]].to_numpy()[0]
    np.testing.assert_allclose(bounds, np.percentile(resampled, [2.5, 97.5]))
    assert table["threshold_high"].tolist() == (CUTS + 0.1).tolist()


def test_thresholds_are_chosen_on_val_and_scores_computed_on_test(
    datasets: dict[str, Dataset], logits: dict[str, np.ndarray], manifest: pd.DataFrame
) -> None:
    result = evaluate(datasets, logits, manifest, PARAMS, seed=0)
    other_test = logits | {"test": -logits["test"]}
    again = evaluate(datasets, other_test, manifest, PARAMS, seed=0)
    assert result.point.thresholds.values.tolist() == again.point.thresholds.values.tolist()
    assert result.evaluated_on == "test"
    assert headline(result.tables["scores"]) != headline(again.tables["scores"])
    point = operating_point(result, "key")
    assert point["content_key"] == "key"
    assert point["temperature"] == 1
    assert list(point["thresholds"]) == ["blue", "green", "red"]


def test_tables_show_the_cost_of_targets(
    datasets: dict[str, Dataset], logits: dict[str, np.ndarray], manifest: pd.DataFrame
) -> None:
    values = PARAMS.model_dump() | {"target": {"red": {"precision": 0.99}, "blue": {"recall": 0.3}}}
    plain = evaluate(datasets, logits, manifest, PARAMS, seed=0).tables
    result = evaluate(datasets, logits, manifest, EvaluateParams.model_validate(values), seed=0)
    rows, before = result.tables["per_label"], plain["per_label"]
    assert not {"target", "abstains", "recall_at_best_f1"} & {*before}
    assert rows["target"].tolist() == ["recall 0.3", "f1", "precision 0.99"]
    assert rows["abstains"].tolist() == [0, 0, 1]
    assert rows["recall_at_best_f1"].tolist() == before["recall"].tolist()
    assert rows["precision_at_best_f1"].tolist() == before["precision"].tolist()
    assert rows["recall"].tolist()[1:] == [before["recall"][1], 0]
    predictions = result.tables["predictions"]
    assert not predictions.loc[predictions["label"] == "red", "predicted"].any()
    scores, old = (
        t.set_index(["predictor", "metric"]) for t in (result.tables["scores"], plain["scores"])
    )
    assert "model at best F1" not in old.index
    pd.testing.assert_frame_equal(
        scores.loc[["model at best F1"]].droplevel(0),
        old.loc[["model"]].droplevel(0).drop("loss_skill"),
    )
    point = operating_point(result, "key")
    assert point["targets"] == {"blue": "recall 0.3", "green": "f1", "red": "precision 0.99"}
    assert point["thresholds"]["red"] > 1
    sentence = describe_targets(result.tables["scores"], rows)[0]
    assert "1 of 2 labels reach their target; these abstain: red." in sentence
    model, best = (scores["value"][name, "recall_micro"] for name in ("model", "model at best F1"))
    assert f"recall is {model:.2f} instead of {best:.2f}" in sentence
    assert describe_targets(plain["scores"], before) == []


def test_val_is_evaluated_without_a_test_split(
    datasets: dict[str, Dataset], logits: dict[str, np.ndarray], manifest: pd.DataFrame
) -> None:
    only = {"val": logits["val"]}
    result = evaluate(datasets, only, manifest, PARAMS, seed=0)
    assert result.evaluated_on == "val"
    assert set(result.tables["predictions"]["split"]) == {"val"}


def test_calibrate_divides_the_logits(
    datasets: dict[str, Dataset], logits: dict[str, np.ndarray], manifest: pd.DataFrame
) -> None:
    plain = evaluate(datasets, logits, manifest, PARAMS, seed=0)
    params = PARAMS.model_copy(update={"calibrate": True})
    result = evaluate(datasets, logits, manifest, params, seed=0)
    temperature = plain.point.temperature
    assert result.point.temperature == temperature != 1
    assert operating_point(result, "key")["temperature"] == temperature
    np.testing.assert_allclose(result.evaluated.logits, logits["test"] / temperature)
    losses = [
        binary_cross_entropy(datasets["val"].targets, r.held_out.logits[:8])
        for r in (plain, result)
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
    assert row["predicted"] == (row["probability"] >= result.point.thresholds.values[1])


def test_label_errors_of_all_held_out_photos_are_listed(
    datasets: dict[str, Dataset], logits: dict[str, np.ndarray], manifest: pd.DataFrame
) -> None:
    # The model contradicts one label in each split with confidence.
    confident = {split: 8.0 * datasets[split].targets - 4 for split in ("val", "test")}
    for split, place in (("val", (2, 0)), ("test", (3, 1))):
        confident[split][place] *= -1.5
    expected = {
        ("val", datasets["val"].files[2], "blue"),
        ("test", datasets["test"].files[3], "green"),
    }
    assert find_errors(evaluate(datasets, confident, manifest, PARAMS, seed=0)) == expected
    # A linear probe has out-of-fold logits of train, too.
    train = 8.0 * datasets["train"].targets - 4
    train[5, 2] *= -1.5
    out_of_fold = np.concatenate([train, confident.pop("val")])[None]
    found = evaluate(datasets, confident, manifest, PARAMS, 0, out_of_fold)
    assert find_errors(found) == expected | {("train", datasets["train"].files[5], "red")}


def find_errors(result: Evaluation) -> set[tuple[str, str, str]]:
    """Return split, file and label of the likely label errors."""
    table = result.tables["label_errors"]
    return set(zip(table["split"], table["image"], table["label"], strict=True))


@pytest.mark.filterwarnings("ignore:No positive class")
@pytest.mark.parametrize("positives", [True, False])
def test_curve_equals_that_of_scikit_learn(
    monkeypatch: pytest.MonkeyPatch, positives: bool
) -> None:
    monkeypatch.setattr(tables, "CURVE_POINTS", TARGETS.size)
    targets, logits = TARGETS * positives, LOGITS.round(1)  # many scores are equal
    table = tables.tabulate_curve(targets, logits)
    precision, recall, threshold = sk.precision_recall_curve(
        targets.ravel(), 1 / (1 + np.exp(-logits.ravel()))
    )
    np.testing.assert_array_equal(table["precision"], precision[-2::-1])
    np.testing.assert_array_equal(table["recall"], recall[-2::-1])
    np.testing.assert_allclose(table["threshold"], threshold[::-1])
    monkeypatch.undo()
    assert len(tables.tabulate_curve(TARGETS, LOGITS)) == tables.CURVE_POINTS < TARGETS.size


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
    np.testing.assert_allclose(found.point.thresholds.values, single.point.thresholds.values)
    np.testing.assert_allclose(found.point.thresholds.low, single.point.thresholds.low)
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
    both = evaluate(datasets, logits, manifest, params, 0, logit[None])
    expected = fit_thresholds(
        targets,
        sigmoid(logit / both.point.temperature),
        PARAMS.prior_strength,
        bootstrap_weights(len(targets), RESAMPLES, 0),
    )
    assert both.point.thresholds.values.tolist() == expected.values.tolist()
    assert plain.point.temperature == fit_temperature(val.targets, logits["val"])
    assert both.point.temperature == fit_temperature(targets, logit)
    assert tuple(r.point.thresholds.chosen_on for r in (plain, both)) == (
        "val",
        "train and val, out of fold",
    )
    for result, splits in ((plain, ["val", "test"]), (both, ["train", "val", "test"])):
        assert result.tables["predictions"]["split"].unique().tolist() == splits
    # The baseline uses the photos on which the weights were fitted.
    loss = both.tables["scores"].set_index(["predictor", "metric"])["value"]
    rates = np.broadcast_to(targets.mean(axis=0), datasets["test"].targets.shape)
    assert loss["label frequencies", "loss"] == pytest.approx(
        binary_cross_entropy(datasets["test"].targets, np.log(rates / (1 - rates)))
    )


@pytest.mark.parametrize("calibrate", [False, True])
def test_cross_validation_judges_each_photo_without_its_fold(
    datasets: dict[str, Dataset], manifest: pd.DataFrame, calibrate: bool
) -> None:
    photos = join_datasets([datasets["train"], datasets["val"]])
    albums = [f"album {photo % 16}" for photo in range(32)]
    for split, groups in (("train", albums[:24]), ("val", albums[24:])):
        datasets[split] = replace(datasets[split], groups=groups)
    photos = replace(photos, groups=albums)
    rng = np.random.default_rng(3)
    out_of_fold = 3 * rng.normal(2.0 * photos.targets - 1, 2, (1 + FOLDS, 32, 3))
    params = PARAMS.model_copy(update={"calibrate": calibrate})
    result = evaluate(datasets, {}, manifest, params, 7, out_of_fold)
    folds = assign_folds(photos, 7)
    logits, predicted = np.zeros((32, 3)), np.zeros((32, 3), bool)
    for fold in range(1, FOLDS + 1):
        own, others = folds == fold, folds != fold
        temperature = fit_temperature(photos.targets[others], out_of_fold[fold, others])
        scaled = out_of_fold[fold] / (temperature if calibrate else 1)
        weights = bootstrap_weights(
            others.sum(), RESAMPLES, 7, [albums[photo] for photo in np.flatnonzero(others)]
        )
        found = fit_thresholds(photos.targets[others], sigmoid(scaled[others]), 2.0, weights)
        logits[own], predicted[own] = scaled[own], (sigmoid(scaled) >= found.values)[own]
    np.testing.assert_array_equal(result.evaluated.logits, logits)
    np.testing.assert_array_equal(result.evaluated.predicted, predicted)
    assert result.evaluated.photos.files == photos.files
    assert result.evaluated_on == "cross-validation"
    scores = headline(result.tables["scores"], result.evaluated_on)
    expected = sk.f1_score(photos.targets, predicted, average="macro")
    assert scores["cross_validation_f1_macro"] == pytest.approx(expected, rel=1e-7)
    assert result.tables["per_label"]["support"].tolist() == photos.targets.sum(axis=0).tolist()
    assert len(result.tables["predictions"]) == 32 * 3
    # The thresholds of the final model are chosen on the first row, with all photos.
    plain = evaluate(datasets, {}, manifest, params, 7, out_of_fold[:1].repeat(6, axis=0))
    assert result.point.thresholds.values.tolist() == plain.point.thresholds.values.tolist()


def test_tables_state_the_number_of_known_entries(
    partly: dict[str, Dataset],
    logits: dict[str, np.ndarray],
    manifest: pd.DataFrame,
    tmp_path: Path,
) -> None:
    result = evaluate(partly, logits, manifest, PARAMS, seed=0)
    targets = partly["test"].targets
    known, probabilities = targets != UNKNOWN, sigmoid(result.evaluated.logits)
    predicted = probabilities >= result.point.thresholds.values
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
