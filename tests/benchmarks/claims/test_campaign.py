import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks.claims import campaign, collection
from benchmarks.claims.campaign import compare_with_tracked, run_claims
from benchmarks.claims.claims import Run, read_experiments
from benchmarks.claims.collection import read_runs
from phototag.base.errors import InputError
from tests.benchmarks.claims.files import write_experiments, write_runs
from tests.projects import Project


def test_compare_with_tracked_shows_range_of_runs(tmp_path: Path) -> None:
    rows = write_runs(
        tmp_path, {("a", 0): 0.2, ("a", 1): 0.22, ("a", 2): 0.21, ("b", 0): 0.3, ("b", 1): 0.32}
    )
    tracked = read_runs(tmp_path)
    text = compare_with_tracked(rows.iloc[:1], tracked)
    assert text.splitlines()[0] == "few-a-s0"
    assert "val loss  0.2000   tracked over 3 seeds: 0.2100 (0.2000-0.2200)   within" in text
    assert "NOT" in compare_with_tracked(rows.iloc[:1].assign(val_loss=0.6), tracked)
    # Two seeds give no useful interval.
    assert "within" not in compare_with_tracked(rows.iloc[3:], tracked)


def test_runs_of_other_photos_or_labels_are_not_mixed(tmp_path: Path) -> None:
    losses = {(variant, seed): 0.2 for variant in "ab" for seed in (0, 1)}
    rows = write_runs(tmp_path, losses).assign(data=["new", "new", "old", "new"])
    tracked = pd.concat([read_runs(tmp_path), rows])  # the first rows know no data
    collection.check_data(tracked[tracked["data"] != "old"])
    with pytest.raises(InputError, match=r"runs of few with seed 0 .* \(a / b\): run the outdated"):
        collection.check_data(tracked)
    row = rows[rows["variant"] == "b"].iloc[:1]
    assert "over 2 seeds" in compare_with_tracked(
        row, rows.assign(data=["new", "new", "old", np.nan])
    )
    assert "over 1 seeds" in compare_with_tracked(row, rows)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params_values: dict[str, Any]) -> Path:
    """A folder with a claim about data/mine.zip, and without DVC."""
    params_values["data"]["raw"] = "data/mine.zip"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params_values))
    experiments = read_experiments(write_experiments(tmp_path / "experiments.yaml"))
    monkeypatch.setattr(campaign, "read_experiments", lambda: experiments)
    monkeypatch.setattr(campaign, "compare_with_tracked", lambda rows, tracked: "scores")
    return tmp_path


def test_results_are_collected_if_a_run_failed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[str] = []
    reported: list[str] = []

    def fail(root: Path, experiments: Mapping[str, Any]) -> None:
        raise InputError("1 of 2 experiments failed")

    def collect(root: Path, runs: Sequence[Run]) -> pd.DataFrame:
        kept.extend(run.name for run in runs)
        return pd.DataFrame()

    monkeypatch.setattr(campaign, "run_experiments", fail)
    monkeypatch.setattr(campaign, "collect_results", collect)
    with pytest.raises(InputError, match="1 of 2"):
        run_claims(project, ["speed"], None, [], [4], only_missing=False, report=reported.append)
    assert kept == ["mine-plain-s4", "mine-fast-s4"]
    assert reported == ["scores"]


def test_only_missing_skips_runs_with_a_row(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_runs(project, {("plain", 0): 0.2, ("fast", 1): 0.3})
    (project / "few.zip").touch()
    ran: list[str] = []

    def keep(root: Path, experiments: Mapping[str, Any]) -> None:
        ran.extend(experiments)

    monkeypatch.setattr(campaign, "run_experiments", keep)
    monkeypatch.setattr(campaign, "collect_results", lambda root, runs: pd.DataFrame())
    photos = project / "few.zip"
    run_claims(project, ["speed"], photos, [], [0, 1], only_missing=True, report=print)
    assert ran == ["few-fast-s0", "few-plain-s1"]
    assert (
        "| speed | few | 1 | Fast is better. |"
        in (project / "docs/research/results.md").read_text()
    )


@pytest.mark.slow
@pytest.mark.soak
def test_claim_runs_and_is_collected(tmp_path: Path, results: Project) -> None:
    project = results.clone(tmp_path / "project", cache=True)
    for path in (
        "docs/research/results/runs.csv",
        "docs/research/results/curves.csv",
        "docs/research/results.md",
    ):
        (project.folder / path).unlink(missing_ok=True)
    variants = ("--variant", "report", "--variant", "one-linear", "--seed", "0")
    project("dvc", "exp", "run", "--queue", "--name", "mine", "-S", "lr=9")
    claims = ("python", "-m", "benchmarks.claims")
    printed = project(*claims, "run", "linear-layers", *variants)
    assert "synthetic-one-linear-s0" in printed

    table = pd.read_csv(project.folder / "docs/research/results/runs.csv")
    runs = {str(row["variant"]): row for row in table.to_dict("records")}
    curves = pd.read_csv(project.folder / "docs/research/results/curves.csv")
    assert set(runs) == set(curves["variant"]) == {"report", "one-linear"}
    listed = json.loads(project("dvc", "exp", "show", "--json"))
    shown = {each["name"]: each["revs"][0]["data"] for each in listed[1]["experiments"]}
    for variant, row in runs.items():
        data = shown[f"synthetic-{variant}-s0"]
        assert data["params"]["params.yaml"]["data"]["seed"] == 0
        assert data["params"]["params.yaml"]["data"]["lr"] < 1
        scores = data["metrics"]["reports/evaluate/metrics.json"]["data"]
        assert row["test_f1_micro"] == pytest.approx(scores["f1_micro"], rel=1e-7)
        own = curves[curves["variant"] == variant]
        # Both tables have 8 digits.
        assert own["val_loss"].min() == pytest.approx(row["val_loss"], rel=1e-7)
    assert runs["report"]["num_parameters"] > runs["one-linear"]["num_parameters"]
    assert "one-linear" in (project.folder / "docs/research/results.md").read_text()

    # Results can be collected later.
    (project.folder / "docs/research/results/runs.csv").unlink()
    project(*claims, "results")
    pd.testing.assert_frame_equal(
        pd.read_csv(project.folder / "docs/research/results/runs.csv"), table
    )

    # Nothing runs again, and the scores are compared with the tracked ones.
    again = project(*claims, "run", "linear-layers", *variants)
    assert f"{runs['report']['val_loss']:.4f}   tracked over 1 seeds" in again
    # The user's own queue is not run.
    assert project("dvc", "queue", "status").count("Queued") == 1
    assert not project(*claims, "run", "linear-layers", *variants, "--missing").strip()
