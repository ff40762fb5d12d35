"""`phototag tune`: killed in the middle, gone on, evaluated once, applied; and its page."""

import io
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

import optuna
import pandas as pd
import pytest
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from playwright.sync_api import Browser, expect

from tests.projects import Project
from tests.search.files import write_search

pytestmark = [pytest.mark.slow, pytest.mark.soak]
TRIALS = 4
SMALL_NETWORK = [{"out": 4, "kernel": 5, "stride": 4, "pool": 4}]
SPACE = {"lr": {"low": 0.0005, "high": 0.05, "log": True}, "batch_size": {"choices": [8, 16]}}


@dataclass(frozen=True)
class Tuned:
    """A study that was killed with -9 after its first trial, and started again.

    Attributes:
        project: Where.
        killed: Its trials when it had been killed: number -> settings and state.
        told: What the second call printed.
    """

    project: Project
    killed: dict[int, tuple[dict[str, object], str]]
    told: str

    @property
    def name(self) -> str:
        """The study's, with its hash."""
        return self.told.partition(":")[0]

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        return read_trials(self.project, self.name)

    def runs(self) -> dict[str, Run]:
        """Name -> run of MLflow."""
        client = MlflowClient(f"sqlite:///{self.project.folder / 'mlflow.db'}")
        return {run.info.run_name: run for run in client.search_runs(["1"])}

    def shown(self) -> pd.DataFrame:
        """What `dvc exp show` has of the study, by experiment."""
        table = pd.read_csv(io.StringIO(self.project("dvc", "exp", "show", "--csv")), na_values="!")
        return table[table["Experiment"].fillna("").str.startswith(self.name)].set_index(
            "Experiment"
        )


def read_trials(project: Project, name: str) -> list[optuna.trial.FrozenTrial]:
    uri = f"sqlite:///{project.folder / 'studies.db'}"
    return list(optuna.load_study(study_name=name, storage=uri).get_trials())


@pytest.fixture(scope="module")
def tuned(results: Project, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    project = results.clone(tmp_path_factory.mktemp("tune") / "project", cache=True)
    settings = {"model.conv": SMALL_NETWORK, "model.linear": [], "epochs": 2}
    write_search(project.folder / "search.yaml", trials=TRIALS, settings=settings, space=SPACE)
    with (project.folder / "log").open("w") as log:
        process = project.start("phototag", "tune", "small", stdout=log)
    while process.poll() is None:
        text = (project.folder / "log").read_text()
        if "trial 0: " in text:
            break
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (project.folder / "log").unlink()
    killed = {
        trial.number: (trial.user_attrs.get("settings", {}), trial.state.name)
        for trial in read_trials(project, text.partition(":")[0])
    }
    return Tuned(project, killed, project("phototag", "tune", "small"))


def test_no_trial_is_lost_or_run_twice(tuned: Tuned) -> None:
    assert tuned.killed[0][1] == "COMPLETE"
    found = tuned.trials()
    assert [trial.state.name for trial in found] == ["COMPLETE"] * TRIALS
    assert len({str(trial.user_attrs["settings"]) for trial in found}) == TRIALS
    for number, (settings, _) in tuned.killed.items():
        if settings:
            assert found[number].user_attrs["settings"] == settings
    names = [f"{tuned.name}-t{number}-s0" for number in range(TRIALS)]
    # What went on says so once, and the first trial is not told again.
    assert re.findall(r"(?m)^trial (\d+): val_loss", tuned.told) == ["1", "2", "3"]
    assert f"{TRIALS} of {TRIALS} trials ({TRIALS} complete), best val_loss" in tuned.told
    assert set(names) <= set(tuned.runs())


def test_every_trial_is_a_nested_run_and_an_experiment_without_test_scores(tuned: Tuned) -> None:
    runs, shown = tuned.runs(), tuned.shown()
    parent = runs[tuned.name]
    assert parent.info.status == "FINISHED"
    assert {"best_score", "test_f1_micro", "test_f1_micro_difference"} <= set(parent.data.metrics)
    for trial in tuned.trials():
        name, settings = f"{tuned.name}-t{trial.number}-s0", trial.user_attrs["settings"]
        assert runs[name].data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert runs[name].info.status == "FINISHED"
        assert float(runs[name].data.params["lr"]) == settings["lr"]
        assert not any(metric.startswith("test_") for metric in runs[name].data.metrics)
        row = shown.loc[name].to_dict()
        assert row["val_loss"] == trial.value
        assert float(row["lr"]) == settings["lr"]
        assert pd.isna(row["loss"])
    # Test was read for two: the winner, whose training was not run again, and the start.
    scored = shown[shown["loss"].notna()]
    best = min(tuned.trials(), key=lambda trial: trial.value or 9)
    winner = f"{tuned.name}-best{best.number}-s0"
    assert set(scored.index) == {winner, f"{tuned.name}-start-s0"}
    assert scored.loc[winner, "val_loss"] == best.value
    # DVC had it in its cache, and nothing was trained for it.
    assert runs[winner].data.tags["phototag.rebuilt"] == "true"
    assert runs[winner].data.tags["mlflow.parentRunId"] == parent.info.run_id
    again = tuned.project("phototag", "tune", "small")
    assert "trial " not in again.replace(f"trial {best.number}", "").replace("trials", "")
    assert set(tuned.shown().index) == set(shown.index)
    assert not list((tuned.project.folder / ".dvc/tmp/workspaces").iterdir())


def test_a_trial_is_taken_over_with_its_model(tuned: Tuned) -> None:
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


def test_the_winner_is_applied_and_the_study_stays_the_same(tuned: Tuned) -> None:
    project, params = tuned.project, tuned.project.folder / "params.yaml"
    before = params.read_text()
    best = min(tuned.trials(), key=lambda trial: trial.value or 9)
    told = project("phototag", "tune", "small", "--apply")
    values = yaml.safe_load(params.read_text())
    assert values["lr"] == best.user_attrs["settings"]["lr"]
    assert values["model"]["linear"] == []
    assert f"+lr: {values['lr']}" in told
    assert params.read_text().count("#") == before.count("#")
    status = project("phototag", "tune", "small", "--status")
    assert status.startswith(f"{tuned.name}: {TRIALS} of {TRIALS} trials")
    assert f"  lr: {values['lr']}\n" in status
    params.write_text(before)


def test_the_page_says_what_was_found(browser: Browser, tuned: Tuned) -> None:
    folder = tuned.project.folder / "reports/tune/small"
    page = browser.new_page(viewport={"width": 1100, "height": 800})
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.goto((folder / "report.html").as_uri())
    expect(page.locator("h1")).to_have_text("What did the study small find?")
    best = min(tuned.trials(), key=lambda trial: trial.value or 9)
    expect(page.locator(".headline")).to_contain_text(
        f"number {best.number} is the best: val_loss {best.value:.4f} on val"
    )
    expect(page.locator(".headline")).to_contain_text("On test, looked at once, micro F1 is")
    expect(page.locator("pre")).to_contain_text(f"+lr: {best.user_attrs['settings']['lr']}")
    widths = page.eval_on_selector_all("img", "images => images.map(each => each.naturalWidth)")
    assert len(widths) == 4
    assert min(widths) > 300
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert errors == []
    if screenshots := os.environ.get("PHOTOTAG_SCREENSHOTS"):
        page.screenshot(path=Path(screenshots, "tune.png"), full_page=True)
    page.close()
    table = pd.read_csv(folder / "trials.csv")
    assert list(table["state"]) == ["complete"] * TRIALS
    contest = pd.read_csv(folder / "contest.csv").set_index("metric")
    scored = tuned.shown().loc[f"{tuned.name}-best{best.number}-s0"]
    for metric, column in (("f1_micro", "f1_micro"), ("mAP_macro", "mAP"), ("loss", "loss")):
        assert contest.loc[metric, "winner"] == pytest.approx(scored[column], abs=1e-6)
