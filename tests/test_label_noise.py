from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from benchmarks import label_noise
from benchmarks.label_noise import set_aside


def test_errors_and_second_copies_are_left_out() -> None:
    rng = np.random.default_rng(0)
    images, labels = [f"im{n}.jpg" for n in range(20)], ["bird", "sea", "tree"]
    decisions = pd.DataFrame(
        {
            "image": np.repeat(images, 3),
            "label": np.tile(labels, 20),
            "target": rng.integers(0, 2, 60),
            "predicted": rng.integers(0, 2, 60),
        }
    )
    wrong = [4, 13, 30, 31]
    errors = decisions.loc[wrong, ["image", "label"]]
    told = set_aside(decisions, errors, {"im7.jpg", "im70.jpg"})

    kept = decisions.drop([*wrong, 21, 22, 23])
    for table, which in ((decisions, "all"), (kept, "clean")):
        micro = f1_score(table["target"], table["predicted"])
        macro = np.mean(
            [f1_score(own["target"], own["predicted"]) for _, own in table.groupby("label")]
        )
        assert told[f"f1_micro_{which}"] == pytest.approx(micro, abs=1e-4)
        assert told[f"f1_macro_{which}"] == pytest.approx(macro, abs=1e-4)
    assert told["decisions"] == 60
    assert told["label_errors"] == 4
    assert told["missing_labels"] == (decisions.loc[wrong, "target"] == 0).sum()
    assert (told["duplicates_in_all"], told["duplicates_on_test"]) == (2, 1)


def test_each_seed_that_both_networks_ran_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = pd.DataFrame(
        {"image": ["im1.jpg", "im2.jpg"], "label": "sea", "target": [1, 0], "predicted": [1, 1]}
    )
    called_wrong = {"few-report-s2": ["im2.jpg"], "few-other-s2": []}
    ran = ["few-report-s0", "few-report-s2", "few-other-s1", "few-other-s2"]
    monkeypatch.setattr(label_noise, "list_experiments", lambda root: [(n, n) for n in ran])
    monkeypatch.setattr(
        label_noise,
        "read_tables",
        lambda root, name: (
            decisions,
            pd.DataFrame({"image": called_wrong[name], "label": "sea"}),
            set(),
        ),
    )
    rows = pd.DataFrame(label_noise.judge(Path(), "few", "other"))
    assert rows["seed"].tolist() == [2, 2]
    assert rows["variant"].tolist() == ["report", "other"]
    # What the report's network calls wrong is set aside for the other one.
    assert rows["label_errors"].tolist() == [0, 1]
    assert rows["f1_micro_clean"].tolist() == [pytest.approx(2 / 3, abs=1e-4), 1.0]
