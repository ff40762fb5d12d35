"""`phototag tune`: a study that is killed, resumed, evaluated once, applied and reported."""

import io
import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import optuna
import pandas as pd
import pytest
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from optuna.trial import FrozenTrial
from playwright.sync_api import Browser, expect

from phototag.search.storage import list_trials
from tests.pages.layout import check_layout
from tests.projects import Project
from tests.search.files import write_search

pytestmark = [pytest.mark.slow, pytest.mark.soak]
TRIALS = 4
SMALL_NETWORK = [{"out": 4, "kernel": 5, "stride": 4, "pool": 4}]
SPACE = {"lr": {"low": 0.0005, "high": 0.05, "log": True}, "batch_size": {"choices": [8, 16]}}


@dataclass(frozen=True)
class Tuned:
    """A study that was killed after its first trial and then resumed with two jobs.

    Attributes:
        project: Project of the study.
        killed: Trials in the database after the kill.
        output: Output of the resumed command.
    """

    project: Project
    killed: list[FrozenTrial]
    output: str

    @property
    def name(self) -> str:
        """Name of the study with its hash."""
        return str(self.study().study_name)

    def study(self) -> optuna.Study:
        return load_study(self.project)

    def trials(self) -> list[FrozenTrial]:
        return list_trials(self.study())

    def runs(self) -> dict[str, Run]:
        """MLflow runs by name."""
        client = MlflowClient(f"sqlite:///{self.project.folder / 'mlflow.db'}")
        return {run.info.run_name: run for run in client.search_runs(["1"])}

    def experiments(self) -> pd.DataFrame:
        """Rows of `dvc exp show` of the study."""
        table = pd.read_csv(io.StringIO(self.project("dvc", "exp", "show", "--csv")), na_values="!")
        own = table["Experiment"].fillna("").str.startswith(self.name)
        return table[own].set_index("Experiment")


def load_study(project: Project) -> optuna.Study:
    uri = f"sqlite:///{project.folder / 'studies.db'}"
    (name,) = optuna.get_all_study_names(uri)
    return optuna.load_study(study_name=name, storage=uri)


@pytest.fixture(scope="module")
def tuned(results: Project, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    project = results.clone(tmp_path_factory.mktemp("tune") / "project", cache=True)
    settings = {"model.conv": SMALL_NETWORK, "model.linear": [], "epochs": 2}
    write_search(project.folder / "search.yaml", trials=TRIALS, settings=settings, space=SPACE)
    process = subprocess.Popen(
        ["phototag", "tune", "small"],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr
    for line in process.stderr:
        if b"Trial 0 finished" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stderr.close()
    killed = load_study(project).trials
    return Tuned(project, killed, project("phototag", "tune", "small", "-j", "2"))


def test_no_trial_is_lost_or_trained_twice(tuned: Tuned) -> None:
    assert tuned.killed[0].state.name == "COMPLETE"
    found = tuned.trials()
    assert [trial.state.name for trial in found] == ["COMPLETE"] * TRIALS
    settings = [trial.user_attrs["settings"] for trial in found]
    assert len(set(map(str, settings))) == TRIALS
    for trial in tuned.killed:
        assert trial.user_attrs.get("settings", settings[0]) in settings
    assert found[0].datetime_complete == tuned.killed[0].datetime_complete
    assert f"{TRIALS} of {TRIALS} trials ({TRIALS} complete), best val_loss" in tuned.output
    assert {f"{tuned.name}-t{trial.number}-s0" for trial in found} <= set(tuned.runs())


def test_every_trial_is_a_nested_run_and_an_experiment_without_test_scores(tuned: Tuned) -> None:
    runs, experiments = tuned.runs(), tuned.experiments()
    parent = runs[tuned.name]
    assert parent.info.status == "FINISHED"
    assert {"best_score", "test_f1_micro", "test_f1_micro_difference"} <= set(parent.data.metrics)
    for trial in tuned.trials():
        name, settings = f"{tuned.name}-t{trial.number}-s0", trial.user_attrs["settings"]
        assert runs[name].data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert runs[name].info.status == "FINISHED"
        assert float(runs[name].data.params["lr"]) == settings["lr"]
        assert not any(metric.startswith("test_") for metric in runs[name].data.metrics)
        row = experiments.loc[name].to_dict()
        assert row["val_loss"] == trial.value
        assert float(row["lr"]) == settings["lr"]
        assert pd.isna(row["loss"])
    # Test scores exist for two experiments: the start, and the winner, which is not trained again.
    scored = experiments[experiments["loss"].notna()]
    best = tuned.study().best_trial
    winner = f"{tuned.name}-best{best.number}-s0"
    assert set(scored.index) == {winner, f"{tuned.name}-start-s0"}
    assert scored.loc[winner, "val_loss"] == best.value
    assert runs[winner].data.tags["phototag.rebuilt"] == "true"
    assert runs[winner].data.tags["mlflow.parentRunId"] == parent.info.run_id
    before = len(tuned.study().trials)
    tuned.project("phototag", "tune", "small")
    assert len(tuned.study().trials) == before
    assert set(tuned.experiments().index) == set(experiments.index)
    assert not list((tuned.project.folder / ".dvc/tmp/workspaces").iterdir())


def test_dvc_exp_apply_restores_a_trial_with_its_model(tuned: Tuned) -> None:
    project, params = tuned.project, tuned.project.folder / "params.yaml"
    other = tuned.trials()[0]
    before = params.read_text()
    project("git", "stash", "-q")  # search.yaml
    project("dvc", "exp", "apply", f"{tuned.name}-t{other.number}-s0")
    assert yaml.safe_load(params.read_text())["lr"] == other.user_attrs["settings"]["lr"]
    assert params.read_text().count("#") == before.count("#")
    project("dvc", "checkout", "-q", "train")
    assert "up to date" in project("dvc", "status", "train")
    project("git", "checkout", "-q", ".")
    project("dvc", "checkout", "-q")
    project("git", "stash", "pop", "-q")


def test_apply_writes_the_winner_into_params_and_keeps_the_study(tuned: Tuned) -> None:
    project, params = tuned.project, tuned.project.folder / "params.yaml"
    before = params.read_text()
    best = tuned.study().best_trial
    output = project("phototag", "tune", "small", "--apply")
    values = yaml.safe_load(params.read_text())
    assert values["lr"] == best.user_attrs["settings"]["lr"]
    assert values["model"]["linear"] == []
    assert f"+lr: {values['lr']}" in output
    status = project("phototag", "tune", "small", "--status")
    assert status.startswith(f"{tuned.name}: {TRIALS} of {TRIALS} trials")
    assert f"  lr: {values['lr']}\n" in status
    params.write_text(before)


def test_the_page_shows_the_winner_and_the_figures(browser: Browser, tuned: Tuned) -> None:
    folder = tuned.project.folder / "reports/tune/small"
    for width in (390, 1100):
        contents = check_layout(browser, folder / "report.html", width)
        assert "Figures" in contents
    page = browser.new_page(viewport={"width": 1100, "height": 800})
    page.goto((folder / "report.html").as_uri())
    expect(page.locator("h1")).to_have_text("Study small")
    best = tuned.study().best_trial
    headline = page.locator(".headline")
    expect(headline).to_contain_text(f"Trial {best.number} is the best of {TRIALS} trials")
    expect(headline).to_contain_text(re.compile("On test, the winner has a micro F1 of 0"))
    trials = page.locator("table").last
    expect(trials.locator("td").nth(0)).to_have_text(str(best.number))
    expect(trials).to_contain_text(str(best.user_attrs["settings"]["lr"]))
    widths = page.eval_on_selector_all("img", "images => images.map(each => each.naturalWidth)")
    assert len(widths) == 1, "too few trials for importances"
    assert min(widths) > 300
    expect(page.locator("body")).to_contain_text(f"(complete trials: {TRIALS})")
    if screenshots := os.environ.get("PHOTOTAG_SCREENSHOTS"):
        page.screenshot(path=Path(screenshots, "tune.png"), full_page=True)
    page.close()
    table = pd.read_csv(folder / "trials.csv")
    assert list(table["state"]).count("COMPLETE") == TRIALS
    comparison = pd.read_csv(folder / "comparison.csv").set_index("metric")
    scored = tuned.experiments().loc[f"{tuned.name}-best{best.number}-s0"]
    for metric, column in (("f1_micro", "f1_micro"), ("mAP_macro", "mAP"), ("loss", "loss")):
        assert comparison.loc[metric, "winner"] == pytest.approx(scored[column], abs=1e-6)
