import io
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from sklearn.metrics import average_precision_score, f1_score, log_loss

from phototag.dataset.targets import UNKNOWN
from phototag.registry.predictions import compare_predictions
from phototag.search.report import describe_optimism, summarize
from phototag.search.winner import Comparison, _read_predictions
from tests.search.files import make_study

PHOTOS, LABELS = 200, ["cat", "dog", "=sofa"]


def predict(skill: float) -> pd.DataFrame:
    """Return predictions.csv of a model, with the group of each photo."""
    rng = np.random.default_rng(3)
    targets = (rng.random((PHOTOS, 3)) < 0.3).astype(int)
    logits = skill * (2 * targets - 1) + rng.normal(size=targets.shape)
    probabilities = 1 / (1 + np.exp(-logits))
    names = [f"im{number}.jpg" for number in range(PHOTOS)]
    return pd.DataFrame(
        {
            "image": np.repeat(names, 3),
            "label": LABELS * PHOTOS,
            "target": targets.ravel(),
            "probability": probabilities.ravel(),
            "predicted": (probabilities >= 0.5).astype(int).ravel(),
            "group": np.repeat(list(map(str, range(PHOTOS))), 3),
        }
    )


def test_scores_are_those_of_scikit_learn_in_any_order_of_photos() -> None:
    winner, start = predict(1.5), predict(0.5)
    shuffled = start.sample(frac=1, random_state=0)
    table = compare_predictions(winner, shuffled, 200, 0).set_index("metric")
    for column, model in (("new", winner), ("old", start)):
        targets, probabilities, predicted = (
            model[name].to_numpy().reshape(-1, 3) for name in ("target", "probability", "predicted")
        )
        expected = {
            "f1_micro": f1_score(targets, predicted, average="micro"),
            "f1_macro": f1_score(targets, predicted, average="macro"),
            "mAP_macro": average_precision_score(targets, probabilities, average="macro"),
            "loss": log_loss(targets.ravel(), probabilities.ravel()),
        }
        assert table[column].to_dict() == pytest.approx(expected)
    assert (table["difference"] == table["new"] - table["old"]).all()
    assert table["low"].to_dict()["f1_micro"] > 0
    assert table["high"].to_dict()["loss"] < 0


def test_the_interval_of_the_difference_has_95_percent_coverage() -> None:
    winner, start = predict(1.5), predict(1.2)
    row = compare_predictions(winner, start, 4000, 0).set_index("metric").loc["loss"].to_dict()
    per_photo = [
        np.reshape(-np.log(np.abs(1 - model["target"] - model["probability"])), (PHOTOS, 3)).mean(1)
        for model in (winner, start)
    ]
    interval = ttest_rel(*per_photo).confidence_interval(0.95)
    # The bootstrap of 4000 resamples is accurate to 2%. A 97.5% interval is 14% wider.
    assert row["high"] - row["low"] == pytest.approx(interval.high - interval.low, rel=0.05)


def test_equal_models_do_not_differ() -> None:
    start = predict(1)
    start["target"] = 1 - start["target"]  # both are scored on the targets of the winner
    same = compare_predictions(predict(1), start, 100, 0)
    assert (same[["difference", "low", "high"]] == 0).all(axis=None)


def test_empty_targets_are_read_as_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "data/splits.csv": "image,split,group\na.jpg,val,1\nb.jpg,test,2\n",
        "reports/evaluate/predictions.csv": "image,split,label,target,probability,predicted\n"
        "a.jpg,val,cat,1,0.9,1\nb.jpg,test,cat,,0.4,0\nb.jpg,test,dog,1,0.7,1\n",
    }
    files = SimpleNamespace(open=lambda path: io.BytesIO(texts[path].encode()))
    monkeypatch.setattr("phototag.search.winner.open_revision", lambda root, revision: (files, ""))
    found = _read_predictions(tmp_path, "revision")
    assert found["target"].tolist() == [UNKNOWN, 1]
    assert found["group"].tolist() == ["2", "2"]


def test_unknown_targets_and_photos_of_one_model_are_left_out() -> None:
    winner, start = predict(1.5), predict(0.5)
    hidden = np.random.default_rng(0).random(len(winner)) < 0.3
    hidden[:3] = True  # the first photo has no known target
    for table in (winner, start):
        table.loc[hidden, "target"] = UNKNOWN
    table = compare_predictions(winner[:-3], start[30:], 50, 0).set_index("metric")
    both = winner[30:-3][~hidden[30:-3]]
    expected = {
        "f1_micro": f1_score(both["target"], both["predicted"]),
        "loss": log_loss(both["target"], both["probability"]),
    }
    assert table["new"][list(expected)].to_dict() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("split", "low", "expected"),
    [
        ("test", 0.05, "On test, the winner has a micro F1 of 0.9000, .* The winner is better."),
        ("test", np.nan, "On test, .* The difference may be due to chance."),
        ("test", -0.5, "On test, .* The winner is worse."),
        ("val", 0.05, "On val, .* This is not evidence, because the winner was chosen on these"),
        ("cross-validation", 0.05, "By cross-validation, .* This is not evidence"),
    ],
)
def test_the_headline_states_what_the_comparison_shows(
    split: str, low: float, expected: str
) -> None:
    row = {"seed": 0, "metric": "f1_micro", "winner": 0.9, "start": 0.8, "difference": 0.1}
    table = pd.DataFrame([row | {"low": low, "high": low + 0.1}])
    plan = SimpleNamespace(study=make_study())
    best = SimpleNamespace(number=3, value=0.2)
    comparison = Comparison(table, split, 1, ("best", "start"))
    _, last = summarize(plan, best, 4, comparison)  # type: ignore[arg-type]
    assert re.match(expected, last)


@pytest.mark.parametrize(
    ("objective", "optimism", "expected"),
    [
        ("val_loss", 0.01, "val_loss of the winner .* 0.0100 worse than on val"),
        ("mAP", -0.01, "0.0100 better"),
        ("mAP", None, "Too few trials"),
    ],
)
def test_the_page_states_the_direction_of_the_optimism(
    objective: str, optimism: float | None, expected: str
) -> None:
    assert re.search(expected, describe_optimism(make_study(objective=objective), optimism))


def test_rounded_probabilities_have_a_finite_loss() -> None:
    sure = predict(1)
    sure["probability"] = sure["predicted"].astype(float)
    table = compare_predictions(sure, predict(1), 50, 0).set_index("metric")
    loss = table["new"].to_dict()["loss"]
    assert np.isfinite(loss)
    assert loss > 1
