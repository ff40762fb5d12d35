"""Trials with real trainings and a real database; `tests/e2e/test_tune.py` runs them in DVC."""

import multiprocessing
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from phototag.base.errors import InputError
from phototag.base.params import read_values
from phototag.experiments import workspaces
from phototag.schema.params import Params
from phototag.search import storage, trials, tuning
from phototag.search.storage import Plan, list_trials, name_study, open_study
from phototag.search.trials import run_trials
from phototag.tracking.provenance import name_process
from phototag.tracking.store import connect
from phototag.training.records import Trained, Watch
from stages.train import train_network
from tests.search.files import make_study, write_search

ROOT = Path(__file__).parents[2]
LR = {"lr": {"low": 0.001, "high": 0.01}}
DEAD = name_process().rpartition(":")[0] + ":1"  # a process with another start time
MakePlan = Callable[..., Plan]


@pytest.fixture
def make_plan(project: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> MakePlan:
    """Plans of studies in a folder that has the inputs of the train stage."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.setenv("DVC_EXP_NAME", "")
    shutil.copy(empty_database, project)
    shutil.copy(ROOT / "dvc.yaml", project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("PHOTOTAG_STUDIES", raising=False)
    values = yaml.safe_load((project / "params.yaml").read_text())

    def make(settings: Mapping[str, Any] | None = None, **changes: Any) -> Plan:
        study = make_study(**changes)
        base = values | {"epochs": 2, "schedule": "constant"} | dict(settings or {})
        return Plan(name=name_study("small", study, base), study=study, base=base, root=project)

    return make


@pytest.fixture(autouse=True)
def saved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the DVC experiments that a workspace would save."""
    made: list[str] = []
    monkeypatch.setattr(workspaces, "run_upstream", lambda place: None)
    monkeypatch.setattr(workspaces, "commit_training", lambda place: None)
    monkeypatch.setattr(workspaces, "save_experiment", lambda place, name: made.append(name))
    return made


def find_runs(name: str) -> list[Any]:
    store = connect()
    query = f"attributes.run_name = '{name}'"
    return list(store.client.search_runs([store.experiment_id], query))


@pytest.fixture
def train_fake(monkeypatch: pytest.MonkeyPatch) -> trials.Train:
    """A training of one epoch, whose val loss is the learning rate."""
    monkeypatch.setattr(trials, "_log_predictions", lambda trained, name: "")

    def train(params: Params, watch: Watch, tags: Mapping[str, str]) -> Any:
        if params.lr == 0.666:
            raise RuntimeError("the disk\nis full")
        record = {"epoch": 1, "val_loss": params.lr, "mAP": 0.5, "f1_macro": 0.5, "best_epoch": 1}
        list(watch(iter([record])))
        return SimpleNamespace(checkpoint=Path("none.pt"))

    return train


def test_each_setting_is_trained_once_per_seed(make_plan: MakePlan, saved: list[str]) -> None:
    space = {"lr": {"choices": [0.0001, 0.001, 0.01]}}
    plan = make_plan(trials=4, seeds=[0, 1], space=space)
    run_trials(plan, train_network)  # ends, although the space has 3 settings only
    study = open_study(plan)
    found = list_trials(study)
    assert sorted(trial.user_attrs["settings"]["lr"] for trial in found) == [0.0001, 0.001, 0.01]
    assert sorted(saved) == sorted(
        f"{plan.name}-t{trial.number}-s{seed}" for trial in found for seed in (0, 1)
    )
    for trial in found:
        results = [trial.user_attrs[f"result {seed}"] for seed in (0, 1)]
        assert trial.value == pytest.approx(sum(result["score"] for result in results) / 2)
        run = connect().client.get_run(results[1]["run"])
        assert run.data.metrics["best_val_loss"] == results[1]["score"]
        assert run.data.tags["phototag.trial"] == str(trial.number)
        assert run.info.run_name == f"{plan.name}-t{trial.number}-s1"
    assert not list((plan.root / ".phototag/checkpoints").glob("*.pt"))
    reasons = [t.user_attrs["skipped"] for t in study.trials if t.state.name == "PRUNED"]
    assert set(reasons) <= {f"it has the same settings as trial {trial.number}" for trial in found}


def test_settings_that_cannot_be_trained_are_skipped_with_the_reason(
    make_plan: MakePlan, train_fake: trials.Train
) -> None:
    nets = [[{"out": 4, "kernel": kernel}] for kernel in (3, 99)]
    plan = make_plan(space={"model.conv": {"choices": nets}}, trials=2)
    run_trials(plan, train_fake)
    found = list_trials(open_study(plan))
    assert [trial.user_attrs["settings"] for trial in found] == [{"model.conv": nets[0]}]
    plan = make_plan(space={"model.conv": {"choices": nets[1:]}}, trials=1)
    run_trials(plan, train_fake)
    with pytest.raises(InputError, match=r"no complete trial: model.conv.0: .* of size 99"):
        storage.find_best(open_study(plan))


def test_data_is_made_again_for_each_seed(
    make_plan: MakePlan, train_fake: trials.Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def run_upstream(place: Path) -> None:
        values = read_values(place / "params.yaml")
        made.append(values["seed"])

    monkeypatch.setattr(workspaces, "run_upstream", run_upstream)
    plan = make_plan(trials=2, space=LR, seeds=[0, 1])
    run_trials(plan, train_fake)
    assert made == [0, 1, 0, 1]
    made.clear()
    run_trials(make_plan(trials=2, space=LR), train_fake)
    assert made == [0]


def test_a_study_does_not_go_on_with_other_photos_or_labels(
    make_plan: MakePlan, train_fake: trials.Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = {"data/raw.zip": "a", "data/corrections.csv": "b", "src/phototag/base": "c"}

    def run_upstream(place: Path) -> None:
        deps = [{"path": path, "md5": value} for path, value in hashes.items()]
        (place / "dvc.lock").write_text(yaml.safe_dump({"stages": {"resize": {"deps": deps}}}))

    monkeypatch.setattr(workspaces, "run_upstream", run_upstream)
    run_trials(make_plan(trials=1, space=LR), train_fake)
    hashes["src/phototag/base"] = "another version of the code"
    run_trials(make_plan(trials=2, space=LR), train_fake)
    for path, trials_ in (("data/raw.zip", 3), ("data/corrections.csv", 2)):  # 2: it is finished
        before = hashes[path]
        hashes[path] = "changed"
        with pytest.raises(InputError, match=r"photos, labels or corrections have changed .* rena"):
            run_trials(make_plan(trials=trials_, space=LR), train_fake)
        hashes[path] = before
    assert len(open_study(make_plan(space=LR)).trials) == 2


def test_a_pruned_trial_ends_its_run_and_removes_its_checkpoint(
    make_plan: MakePlan, saved: list[str]
) -> None:
    plan = make_plan(
        {"epochs": 4}, trials=7, pruner="median", space={"lr": {"low": 1e-5, "high": 0.01}}
    )
    study = open_study(plan)
    for lr in (0.01, 0.009, 0.008, 0.007, 0.0065, 0.00666, 0.00001):
        study.enqueue_trial({"lr": lr})
    run_trials(plan, train_network)
    pruned = study.trials[6]
    assert pruned.state == TrialState.PRUNED
    assert pruned.last_step
    assert pruned.last_step < 4
    name = f"{plan.name}-t6-s0"
    assert name not in saved
    assert [run.info.status for run in find_runs(name)] == ["KILLED"]
    assert not list((plan.root / ".phototag/checkpoints").glob("*.pt"))


def test_failed_trials_are_recorded_and_ten_in_a_row_end_the_study(
    make_plan: MakePlan, train_fake: trials.Train
) -> None:
    plan = make_plan(trials=2, space={"lr": {"low": 0.001, "high": 0.9}})
    study = open_study(plan)
    for lr in (0.666, 0.5):
        study.enqueue_trial({"lr": lr})
    run_trials(plan, train_fake)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
    assert study.trials[0].user_attrs["error"] == "the disk is full"

    batches = {"batch_size": {"low": 1, "high": 99}}
    plan = make_plan({"lr": 0.666}, trials=20, space=batches)
    with pytest.raises(InputError, match=r"10 trials in a row failed; .*: the disk is full"):
        run_trials(plan, train_fake)
    assert len(list_trials(open_study(plan))) == 10


def _train_until_killed(plan: Plan, folder: Path) -> None:
    """Run trials, and kill this process in epoch 2 of the second trial."""
    for name in ("run_upstream", "commit_training", "save_experiment"):
        setattr(workspaces, name, lambda *_, **__: None)
    os.chdir(folder)

    def train(params: Params, watch: Watch, tags: Mapping[str, str]) -> Trained:
        def kill(epochs: Any) -> Any:
            for each in watch(epochs):
                yield each
                if tags["phototag.trial"] == "1" and each["epoch"] == 2:
                    os.kill(os.getpid(), signal.SIGKILL)

        return train_network(params, kill, tags)

    run_trials(plan, train)


def test_a_killed_trial_resumes_and_no_setting_is_lost_or_trained_twice(
    make_plan: MakePlan,
) -> None:
    plan = make_plan({"epochs": 3}, trials=3, space=LR)
    process = multiprocessing.get_context("spawn").Process(
        target=_train_until_killed, args=(plan, plan.root)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    study = open_study(plan)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "RUNNING"]
    had_checkpoint: list[bool] = []

    def train(params: Params, watch: Watch, tags: Mapping[str, str]) -> Trained:
        had_checkpoint.append(any(Path(plan.root, ".phototag/checkpoints").glob("*.pt")))
        return train_network(params, watch, tags)

    run_trials(plan, train)
    killed = study.trials[1]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL"] + ["COMPLETE"] * 2
    found = list_trials(study)
    assert [trial.number for trial in found] == [0, 2, 3]
    assert found[1].params == killed.params
    assert had_checkpoint == [True, False]
    assert len({trial.user_attrs["settings"]["lr"] for trial in found}) == 3
    for trial in found:
        runs = find_runs(f"{plan.name}-t{trial.number}-s0")
        assert [run.info.status for run in runs] == ["FINISHED"]
        history = connect().client.get_metric_history(runs[0].info.run_id, "val_loss")
        assert [metric.step for metric in history] == [1, 2, 3]
    assert not find_runs(f"{plan.name}-t1-s0")  # its run has the new trial's name


def start_trial(plan: Plan, process: str) -> optuna.Study:
    """Start a trial of another process, with a heartbeat."""
    study = open_study(plan)
    trial = study.ask()
    trial.suggest_float("lr", 0.001, 0.01)
    trial.storage.record_heartbeat(trial._trial_id)
    trial.set_user_attr("process", process)
    trial.set_user_attr("settings", trial.params)
    return study


def age_heartbeats(plan: Plan, seconds: float) -> None:
    with closing(sqlite3.connect(plan.root / "studies.db")) as database, database:
        query = "UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, ?)"
        database.execute(query, [f"-{seconds} seconds"])


def test_a_trial_of_another_machine_resumes_after_the_grace_period(
    make_plan: MakePlan, train_fake: trials.Train
) -> None:
    plan = make_plan(trials=1, space=LR)
    study = start_trial(plan, "elsewhere:1:1")
    age_heartbeats(plan, storage.GRACE_PERIOD - 30)
    run_trials(plan, train_fake)
    assert [trial.state.name for trial in study.trials] == ["RUNNING"]
    age_heartbeats(plan, 60)
    run_trials(plan, train_fake)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
    assert study.trials[0].params == study.trials[1].params
    assert study.trials[1].user_attrs["process"] == name_process()


def retry(study: optuna.Study, times: int, killed: bool = True) -> None:
    """Retry the only trial; each retry is left unfinished by a process that has died."""
    for _ in range(times):
        storage.retry_killed_trials(study, killed=killed)
        study.ask().set_user_attr("process", DEAD)


def test_a_trial_that_kills_its_process_repeatedly_fails(
    make_plan: MakePlan, train_fake: trials.Train
) -> None:
    plan = make_plan(trials=1, space=LR)
    study = start_trial(plan, DEAD)
    retry(study, storage.MAX_RETRIES)
    storage.retry_killed_trials(study)
    assert [trial.state.name for trial in study.trials] == ["FAIL"] * 3
    assert [trial.number for trial in list_trials(study)] == [2]
    run_trials(plan, train_fake)
    assert len(study.trials) == 3


def test_stopping_a_study_does_not_count_as_a_failure_of_its_trial(
    make_plan: MakePlan, train_fake: trials.Train
) -> None:
    plan = make_plan(trials=1, space=LR)
    study = start_trial(plan, DEAD)
    retry(study, storage.MAX_RETRIES + 3, killed=False)
    retry(study, storage.MAX_RETRIES)
    storage.retry_killed_trials(study, killed=False)
    run_trials(plan, train_fake)
    (trial,) = list_trials(study)
    assert (trial.state.name, trial.params) == ("COMPLETE", study.trials[0].params)


def test_a_relative_database_is_in_the_projects_root(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan()
    monkeypatch.setenv("PHOTOTAG_STUDIES", "sqlite:///team.db")
    open_study(plan).ask()
    (tmp_path / "workspace").mkdir()
    monkeypatch.chdir(tmp_path / "workspace")
    assert len(open_study(plan).trials) == 1
    assert (plan.root / "team.db").exists()


@pytest.mark.parametrize("uri", ["nonsense", "postgresql://me:secret@127.0.0.1:9/no"])
def test_a_database_that_cannot_be_used_is_reported_without_its_password(
    uri: str, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOTAG_STUDIES", uri)
    with pytest.raises(InputError, match=r"cannot be used .* set PHOTOTAG_STUDIES to") as raised:
        open_study(make_plan())
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_study_keeps_its_start_values_when_its_winner_is_applied(
    make_plan: MakePlan, train_fake: trials.Train
) -> None:
    root = make_plan().root
    write_search(root / "search.yaml", trials=1, settings={"epochs": 2}, space=LR)
    with pytest.raises(InputError, match="no study 'large': choose one of small"):
        tuning.open_plan(root, "large")
    plan, study = tuning.open_plan(root, "small")
    before = (root / "params.yaml").read_text()
    run_trials(plan, train_fake)
    (root / "params.yaml").write_text(before)  # here, the root is the workspace, too
    lr = study.best_trial.user_attrs["settings"]["lr"]
    assert f"lr: {lr}" in tuning.apply_winner(root, "small")
    values = read_values(root / "params.yaml")
    assert (values["lr"], values["epochs"], values["seed"]) == (lr, 2, 0)
    later, _ = tuning.open_plan(root, "small")
    assert later.name == plan.name
    assert later.base["lr"] == plan.base["lr"] != lr


def test_the_name_of_a_study_depends_on_what_makes_trials_comparable(make_plan: MakePlan) -> None:
    name = make_plan().name
    assert make_plan(trials=99, hours=1.0, description="Other words.").name == name
    assert make_plan({"lr": 0.5}).name == name  # it is searched
    others = [
        make_plan({"weight_decay": 0.5}),
        make_plan(seeds=[1]),
        make_plan(objective="mAP"),
        make_plan(seed=1),
        make_plan(space={"lr": {"choices": [0.1, 0.2]}}),
    ]
    assert len({name, *(plan.name for plan in others)}) == 6
