from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from benchmarks import label_noise
from benchmarks.claims.claims import Run
from benchmarks.label_noise import compare_scores


def test_compare_scores_removes_errors_and_duplicates() -> None:
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
    scores = compare_scores(decisions, errors, {"im7.jpg", "im70.jpg"})

    kept = decisions.drop([*wrong, 21, 22, 23])
    for table, which in ((decisions, "all"), (kept, "clean")):
        micro = f1_score(table["target"], table["predicted"])
        macro = np.mean(
            [f1_score(own["target"], own["predicted"]) for _, own in table.groupby("label")]
        )
        assert scores[f"f1_micro_{which}"] == pytest.approx(micro, abs=1e-4)
        assert scores[f"f1_macro_{which}"] == pytest.approx(macro, abs=1e-4)
    assert scores["decisions"] == 60
    assert scores["label_errors"] == 4
    assert scores["missing_labels"] == (decisions.loc[wrong, "target"] == 0).sum()
    assert (scores["duplicates_in_all"], scores["duplicates_on_test"]) == (2, 1)


def give_experiments(monkeypatch: pytest.MonkeyPatch, runs: list[Run]) -> None:
    """Make DVC list these runs, each at a revision named like the run."""
    names = [(run.name, run.name) for run in runs]
    monkeypatch.setattr(label_noise, "list_experiments", lambda root: names)
    monkeypatch.setattr(label_noise, "list_finished", lambda root, experiments: runs)
    monkeypatch.setattr(label_noise, "read_experiments", lambda: None)


def test_judge_compares_seeds_that_both_networks_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = pd.DataFrame(
        {"image": ["im1.jpg", "im2.jpg"], "label": "sea", "target": [1, 0], "predicted": [1, 1]}
    )
    called_wrong = {"few-report-s12": ["im2.jpg"], "few-other-s12": []}
    ran = [Run("few", "report", 0, {}), Run("few", "report", 12, {}), Run("few", "other", 1, {})]
    ran += [Run("few", "other", 12, {}), Run("many", "report", 1, {})]
    give_experiments(monkeypatch, ran)
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
    assert rows["seed"].tolist() == [12, 12]
    assert rows["variant"].tolist() == ["report", "other"]
    assert rows["judge"].tolist() == ["other", "report"]
    # Errors found by the report's network are removed for the other one.
    assert rows["label_errors"].tolist() == [0, 1]
    assert rows["f1_micro_clean"].tolist() == [pytest.approx(2 / 3, abs=1e-4), 1.0]


def test_read_tables_returns_rows_of_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = tmp_path / "reports/evaluate"
    evaluation.mkdir(parents=True)
    (tmp_path / "data").mkdir()
    table = pd.DataFrame({"split": ["val", "test"], "image": ["im1.jpg", "im2.jpg"]})
    table.to_csv(evaluation / "predictions.csv", index=False)
    table.assign(label="NA").to_csv(evaluation / "label_errors.csv", index=False)
    files, groups = ["im3.jpg", "im1.jpg", "im4.jpg", "im2.jpg"], ["a", "", "b", "a"]
    manifest = pd.DataFrame({"file": files, "duplicate_group": groups})
    manifest.to_csv(tmp_path / "data/manifest.csv", index=False)
    files_of = SimpleNamespace(open=lambda path: (tmp_path / path).open())
    monkeypatch.setattr(label_noise, "DVCFileSystem", lambda root, rev: files_of)
    predictions, errors, duplicates = label_noise.read_tables(tmp_path, "HEAD")
    assert predictions["image"].tolist() == ["im2.jpg"]
    assert errors[["image", "label"]].values.tolist() == [
        ["im2.jpg", "NA"]
    ]  # not a missing value, but the name of a label
    assert duplicates == {"im2.jpg"}
