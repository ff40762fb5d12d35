"""Trials that really train, and Optuna's own storage; what DVC has to do with them is not here.

`tests/e2e/test_tune.py` has that.
"""

import itertools
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pandas as pd
import pytest
import yaml
from optuna.trial import TrialState

from phototag.base.errors import InputError
from phototag.base.keys import apply_overrides
from phototag.schema.params import Params, read_all_params
from phototag.search import journal, trials, tuning
from phototag.search.journal import Plan, name_study, open_study, pick_best
from phototag.search.trials import next_trial, run_trial, work
from phototag.tracking.provenance import name_process
from phototag.tracking.store import connect
from phototag.tracking.training import Stopped
from phototag.training.loop import Epoch, Trained, Watch
from stages.train import train_network
from tests.search.files import make_study

SPACE = {"lr": {"choices": [0.0001, 0.001, 0.01]}}
MakePlan = Callable[..., Plan]


@pytest.fixture
def make_plan(project: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> MakePlan:
    """Plans of studies in a folder in which the train stage finds its inputs."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.setenv("DVC_EXP_NAME", "")
    shutil.copy(empty_database, project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("PHOTOTAG_STUDIES", raising=False)
    text = (project / "params.yaml").read_text()

    def make(**changes: Any) -> Plan:
        given = {"space": SPACE, "settings": {}} | changes
        study, base = make_study(**given), yaml.safe_load(text)
        base |= {"epochs": 2, "schedule": "constant"} | given["settings"]
        name = name_study("small", study, base)
        return Plan(name=name, study=study, base=base, text=text, root=project, began=time.time())

    return make


@pytest.fixture(autouse=True)
def saved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """The experiments that would be made."""
    made: list[tuple[str, bool]] = []
    monkeypatch.setattr(trials, "run_upstream", lambda root, place: None)
    monkeypatch.setattr(
        trials, "save_experiment", lambda root, place, name, whole: made.append((name, whole))
    )
    return made


def listed(plan: Plan) -> list[optuna.trial.FrozenTrial]:
    return list(open_study(plan.root, plan.name, plan.study).get_trials())


def test_a_study_ends_and_each_choice_is_trained_once(
    make_plan: MakePlan, saved: list[tuple[str, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(trials=3, seeds=[0, 1])
    work(plan, train_network)
    found = listed(plan)
    own = [trial for trial in found if journal.is_own(trial)]
    assert sorted(trial.user_attrs["settings"]["lr"] for trial in own) == [0.0001, 0.001, 0.01]
    assert sorted(saved) == sorted(
        (f"{plan.name}-t{trial.number}-s{seed}", True) for trial in own for seed in (0, 1)
    )
    for trial in own:
        results = [trial.user_attrs[f"result {seed}"] for seed in (0, 1)]
        assert trial.value == pytest.approx(sum(result["score"] for result in results) / 2)
        # What the run says, as the stage logged it.
        run = connect().client.get_run(results[1]["run"])
        assert run.data.metrics["best_val_loss"] == results[1]["score"]
        assert run.data.tags["phototag.trial"] == str(trial.number)
        assert run.info.run_name == f"{plan.name}-t{trial.number}-s1"
    best = pick_best(own, plan.study)
    assert best
    assert best.value == min(trial.value or 9 for trial in own)
    assert f"trial {best.number}: val_loss {best.value:.4f}" in capsys.readouterr().out
    assert not list((plan.root / ".phototag/checkpoints").glob("*.pt"))
    repeated = [trial for trial in found if "same as" in trial.user_attrs]
    assert all(trial.value == found[trial.user_attrs["same as"]].value for trial in repeated)

    # Asked for more than there are, it ends with those.
    work(plan.model_copy(update={"study": make_study(space=SPACE, trials=4)}), train_network)
    assert "proposals had all been tried before, or cannot be trained" in capsys.readouterr().out
    assert len(saved) == 6


def test_all_of_a_small_space_is_found(make_plan: MakePlan) -> None:
    """And then the study ends, though it may have more trials."""
    space = {"lr": {"choices": [0.001, 0.002, 0.003]}, "batch_size": {"choices": [8, 16, 24, 32]}}
    plan = make_plan(space=space, trials=20)
    study = open_study(plan.root, plan.name, plan.study)
    found = []
    while (trial := next_trial(study, plan)) is not None:
        found.append(tuple(trial.user_attrs["settings"].values()))
        study.tell(trial, sum(found[-1]))
    assert sorted(found) == sorted(itertools.product([0.001, 0.002, 0.003], [8, 16, 24, 32]))


def test_a_space_of_which_nothing_can_be_trained_is_told(make_plan: MakePlan) -> None:
    kernels = [[{"out": 4, "kernel": kernel}] for kernel in (98, 99)]
    plan = make_plan(space={"model.conv": {"choices": kernels}}, trials=1)
    study = open_study(plan.root, plan.name, plan.study)
    with pytest.raises(InputError, match=r"none of 100 proposals can be trained, .* of a map"):
        next_trial(study, plan)


def test_photos_and_split_are_the_trials_own(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a trial that was pruned, whose own are then in the workspace."""
    made, trained = [], []
    epoch = Epoch(1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.1, 1, 9.0)

    def run_upstream(root: Path, place: Path) -> None:
        params = read_all_params(place / "params.yaml")
        made.append((params.seed, params.resize.size))

    def train(params: Params, watch: Watch, tags: Mapping[str, str]) -> Any:
        assert made[-1] == (params.seed, params.resize.size)
        trained.append(made[-1])
        list(watch(iter([epoch])))
        if params.resize.size == 24:
            raise Stopped
        return SimpleNamespace(checkpoint=Path("none.pt"))

    monkeypatch.setattr(trials, "run_upstream", run_upstream)
    monkeypatch.setattr(trials, "_keep_logits", lambda trained, name: "")
    plan = make_plan(space={"resize.size": {"choices": [16, 24]}}, seeds=[0, 1])
    study = open_study(plan.root, plan.name, plan.study)
    ground = ""
    # The last one's process was killed when its first seed was done.
    for size, results in ((16, {}), (24, {"epochs": 1}), (16, {"result 0": {"score": 0.5}})):
        study.enqueue_trial({"resize.size": size})
        trial = study.ask()
        trial.suggest_categorical("resize.size", [16, 24])
        for key, value in ({"settings": {"resize.size": size}} | results).items():
            trial.set_user_attr(key, value)
        ground = run_trial(study, trial, plan, train, ground)
    assert trained == [(0, 16), (1, 16), (0, 24), (1, 16)]
    assert [trial.state.name for trial in listed(plan)] == ["COMPLETE", "PRUNED", "COMPLETE"]


def test_only_states_of_pruned_trials_are_bounded(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan()
    study = open_study(plan.root, plan.name, plan.study)
    folder = plan.root / ".phototag/checkpoints"
    folder.mkdir(parents=True)
    places = [folder / f"{name}.pt" for name in ("old", "middle", "new", "users", "at-work")]
    elsewhere = plan.root / "of-another-clone.pt"
    for age, path in enumerate([*places, elsewhere]):
        path.write_bytes(bytes(100))
        os.utime(path, (1000 + age, 1000 + age))
    for path in (*places[:3], elsewhere):
        trial = study.ask()
        trial.set_user_attr("checkpoint", str(path))
        study.tell(trial, state=TrialState.PRUNED)
    study.ask().set_user_attr("checkpoint", str(places[4]))
    monkeypatch.setattr(tuning, "KEPT", 250)
    tuning.bound_states(tuning.list_states(plan.root, study))
    assert [path.exists() for path in places] == [False, True, True, True, True]
    monkeypatch.setattr(tuning, "KEPT", 50)  # a single one is larger
    tuning.bound_states(tuning.list_states(plan.root, study))
    assert [path.exists() for path in places] == [False, False, True, True, True]
    assert elsewhere.exists()


def test_a_relative_address_is_the_roots(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan()
    monkeypatch.setenv("PHOTOTAG_STUDIES", "sqlite:///team.db")
    open_study(plan.root, plan.name, plan.study).ask()
    (tmp_path / "workspace").mkdir()
    monkeypatch.chdir(tmp_path / "workspace")
    assert len(open_study(plan.root, plan.name, plan.study).trials) == 1
    assert (plan.root / "team.db").exists()


def test_the_winner_leaves_alone_what_no_trial_depends_on(make_plan: MakePlan) -> None:
    plan = make_plan(trials=1)
    work(plan, train_network)
    (best,) = listed(plan)
    study = open_study(plan.root, plan.name, plan.study)
    tuning._fix_base(study, plan)
    # Meanwhile the user has changed how models are judged, and taken the winner over.
    by_now = apply_overrides(plan.base, {"evaluate.calibrate": True, "lr": 0.7, "seed": 9})
    later = plan.model_copy(update={"base": by_now})
    base = tuning._fix_base(study, later)  # of the contest, too
    assert base["evaluate"]["calibrate"]
    assert base["lr"] == plan.base["lr"]
    won = tuning.winning_settings(later.model_copy(update={"base": base}), best)
    assert won["lr"] == best.user_attrs["settings"]["lr"]
    assert won["epochs"] == 2
    assert won["evaluate.calibrate"]
    assert "seed" not in won


def test_infeasible_trials_take_no_training(make_plan: MakePlan) -> None:
    space = {"model.conv": {"choices": [[{"out": 4, "kernel": 3}], [{"out": 4, "kernel": 99}]]}}
    plan = make_plan(space=space, trials=1, sampler="random")
    study = open_study(plan.root, plan.name, plan.study)
    study.enqueue_trial({"model.conv": json.dumps([{"out": 4, "kernel": 99}])})
    trial = next_trial(study, plan)
    assert trial
    assert trial.user_attrs["settings"] == {"model.conv": [{"out": 4, "kernel": 3}]}
    first = listed(plan)[0]
    assert first.state == TrialState.PRUNED
    assert first.constraints == {"feasible": 1.0}
    assert "leaves nothing of a map" in first.user_attrs["infeasible"]
    assert first.duration
    assert first.duration.total_seconds() < 1
    assert journal.SECONDS not in first.user_attrs


def test_a_pruned_trial_keeps_its_state_and_a_longer_one_goes_on_from_it(
    make_plan: MakePlan, saved: list[tuple[str, bool]]
) -> None:
    plan = make_plan(
        trials=7,
        pruner="median",
        sampler="random",
        settings={"epochs": 4},
        space={"lr": {"low": 0.00001, "high": 0.01}},
    )
    study = open_study(plan.root, plan.name, plan.study)
    for lr in (0.01, 0.009, 0.008, 0.007, 0.0065, 0.00001):
        study.enqueue_trial({"lr": lr})
        trial = next_trial(study, plan)
        assert trial
        run_trial(study, trial, plan, train_network, "")
    pruned = listed(plan)[-1]
    assert pruned.state == TrialState.PRUNED
    stopped = pruned.last_step
    assert stopped
    assert stopped < 4
    name = f"{plan.name}-t{pruned.number}-s0"
    assert saved[-1] == (name, False)
    assert len(pd.read_csv("reports/train/history.csv")) == stopped
    assert not Path("reports/train/training.json").exists()
    runs = connect().client.search_runs(["1"], f"attributes.run_name = '{name}'")
    assert [run.info.status for run in runs] == ["KILLED"]
    (state,) = Path(plan.root, ".phototag/checkpoints").glob("*.pt")
    assert pruned.user_attrs["checkpoint"] == str(state)

    # The same settings, with more epochs: only what is missing is trained.
    trained: list[int] = []

    def watched(params: Params, watch: Watch, tags: Mapping[str, str]) -> Trained:
        before = state.stat().st_mtime_ns

        def note(epochs: Any) -> Any:
            for epoch in watch(epochs):
                trained.append(epoch.epoch)
                assert (state.stat().st_mtime_ns > before) == (epoch.epoch > stopped)
                yield epoch

        return train_network(params, note, tags)

    longer = make_plan(trials=1, settings={"epochs": 6}, space={"lr": {"choices": [0.00001, 1.0]}})
    study = open_study(longer.root, longer.name, longer.study)
    study.enqueue_trial({"lr": 0.00001})
    trial = next_trial(study, longer)
    assert trial
    run_trial(study, trial, longer, watched, "")
    assert trained == [1, 2, 3, 4, 5, 6]
    assert listed(longer)[0].state == TrialState.COMPLETE


def test_a_failed_trial_is_told_and_ten_in_a_row_stop_the_study(make_plan: MakePlan) -> None:
    plan = make_plan(trials=20, space={"lr": {"low": 0.001, "high": 0.1}})

    def fail(params: Params, watch: Watch, tags: Mapping[str, str]) -> Trained:
        if params.lr < 0.05:
            raise RuntimeError("the disk\nis full")
        return train_network(params, watch, tags)

    study = open_study(plan.root, plan.name, plan.study)
    for lr in (0.01, 0.09):
        study.enqueue_trial({"lr": lr})
        trial = next_trial(study, plan)
        assert trial
        run_trial(study, trial, plan, fail, "")
    first, second = listed(plan)
    assert (first.state, second.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert first.user_attrs["error"] == "the disk is full"

    for number in range(10):
        study.enqueue_trial({"lr": 0.001 * (number + 1)})
    # Of one that failed, the same is not tried again: one more is needed.
    study.enqueue_trial({"lr": 0.0201})
    with pytest.raises(InputError, match=r"10 trials in a row failed; .*: the disk is full"):
        work(plan, fail)
    assert (
        sum(trial.state == TrialState.FAIL for trial in listed(plan) if journal.is_own(trial)) == 11
    )


def _train_until_killed(plan: Plan, folder: Path, epoch: int) -> None:
    """Die as kill -9 has it, in the midst of the second trial."""
    for name in ("run_upstream", "save_experiment"):
        setattr(trials, name, lambda *_, **__: None)
    os.chdir(folder)

    def train(params: Params, watch: Watch, tags: Mapping[str, str]) -> Trained:
        def die(epochs: Any) -> Any:
            for each in watch(epochs):
                yield each
                if tags["phototag.trial"] == "1" and each.epoch == epoch:
                    os.kill(os.getpid(), signal.SIGKILL)

        return train_network(params, die, tags)

    work(plan, train)


def test_what_was_killed_goes_on_and_no_trial_is_lost_or_run_twice(make_plan: MakePlan) -> None:
    plan = make_plan(trials=3, settings={"epochs": 3}, space={"lr": {"low": 0.001, "high": 0.01}})
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_train_until_killed, args=(plan, plan.root, 2))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [trial.state for trial in listed(plan)] == [TrialState.COMPLETE, TrialState.RUNNING]
    proposed = listed(plan)[1].params

    ran: list[tuple[str, list[int]]] = []

    def train(params: Params, watch: Watch, tags: Mapping[str, str]) -> Trained:
        (state,) = [*Path(plan.root, ".phototag/checkpoints").glob("*.pt"), None][:1]
        ran.append((tags["phototag.trial"], [state.stat().st_size] if state else []))
        return train_network(params, watch, tags)

    work(plan, train)
    found = listed(plan)
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 3
    assert found[1].params == proposed
    assert [number for number, _ in ran] == ["1", "2"]
    assert ran[0][1]  # it had a state to go on from
    assert list(found[1].intermediate_values) == [1, 2, 3]
    assert len({trial.user_attrs["settings"]["lr"] for trial in found}) == 3
    # One run a trial, each whole.
    for trial in found:
        name = f"{plan.name}-t{trial.number}-s0"
        runs = connect().client.search_runs(["1"], f"attributes.run_name = '{name}'")
        assert [run.info.status for run in runs] == ["FINISHED"]
        history = connect().client.get_metric_history(runs[0].info.run_id, "val_loss")
        assert [metric.step for metric in history] == [1, 2, 3]


def let_pass(plan: Plan, seconds: float) -> None:
    """Set each trial's last sign of life back."""
    with closing(sqlite3.connect(plan.root / "studies.db")) as database, database:
        database.execute(
            "UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, ?)",
            [f"-{seconds} seconds"],
        )


def test_a_trial_of_a_machine_that_is_gone_is_taken_up(make_plan: MakePlan) -> None:
    plan = make_plan(trials=1)
    study = open_study(plan.root, plan.name, plan.study)
    trial = next_trial(study, plan)
    assert trial
    for process in (name_process(), "elsewhere:1:1"):
        trial.set_user_attr("process", process)
        let_pass(plan, journal.SILENCE - 30)
        assert next_trial(study, plan) is None
        # Only of its own machine's processes it is known whether they live.
        let_pass(plan, 60)
        taken = next_trial(study, plan)
        assert (taken is None) == (process == name_process())
        if taken is None:
            trial.storage.record_heartbeat(trial._trial_id)
    assert listed(plan)[0].user_attrs["process"] == name_process()
    assert listed(plan)[0].user_attrs["attempts"] == 2
    assert not journal.list_silent(study)


def test_a_machine_that_slept_finds_its_trial_ended_and_goes_on(
    make_plan: MakePlan, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan(trials=2, space={"lr": {"low": 0.001, "high": 0.01}})

    def train(params: Params, watch: Watch, tags: Mapping[str, str]) -> Trained:
        trained = train_network(params, watch, tags)
        if tags["phototag.trial"] == "0":
            study = open_study(plan.root, plan.name, plan.study)
            study.tell(0, 0.5)
        return trained

    work(plan, train)
    assert "trial 0: another machine had it too" in capsys.readouterr().out
    assert [trial.state for trial in listed(plan)] == [TrialState.COMPLETE] * 2
    assert listed(plan)[0].value == 0.5


def test_a_process_tells_that_it_lives(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "BEAT", 0.01)
    plan = make_plan(trials=1)
    study = open_study(plan.root, plan.name, plan.study)
    trial = next_trial(study, plan)
    assert trial
    let_pass(plan, journal.SILENCE + 60)
    assert journal.list_silent(study) == {trial._trial_id}
    until = time.monotonic() + 60
    with journal.beat(trial):
        while journal.list_silent(study) and time.monotonic() < until:
            pass
    assert not journal.list_silent(study)


def test_a_trial_that_kills_its_process_is_given_up(make_plan: MakePlan) -> None:
    plan = make_plan(trials=1)
    study = open_study(plan.root, plan.name, plan.study)
    trial = next_trial(study, plan)
    assert trial
    trial.set_user_attr("process", name_process().rpartition(":")[0] + ":1")
    trial.set_user_attr("attempts", 3)
    assert next_trial(study, plan) is None
    assert listed(plan)[0].state == TrialState.FAIL
    assert "lost 3 times" in listed(plan)[0].user_attrs["error"]


def test_a_database_that_is_away_is_one_sentence(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan()
    for uri, told in (
        ("sqlite:team.db", r"let PHOTOTAG_STUDIES name a database, such as postgresql"),
        ("sqlite:/team.db", r"let PHOTOTAG_STUDIES name a database, such as postgresql"),
        ("nonsense", r"let PHOTOTAG_STUDIES name a database, such as postgresql"),
        ("postgresql://me:secret@127.0.0.1:9/no", r"\*\*\*@127.0.0.1:9/no cannot be used"),
        ("postgresql://me:sec/ret@127.0.0.1:9/no", r"\*\*\*@127.0.0.1:9/no cannot be used"),
        ("postgresql://127.0.0.1:port/no", r"let PHOTOTAG_STUDIES name a database, such as"),
    ):
        monkeypatch.setenv("PHOTOTAG_STUDIES", uri)
        with pytest.raises(InputError, match=told) as raised:
            open_study(plan.root, plan.name, plan.study)
        assert "sec" not in str(raised.value)
        assert "\n" not in str(raised.value)


def test_names_of_studies_follow_what_makes_trials_comparable(make_plan: MakePlan) -> None:
    name = make_plan().name
    assert make_plan(trials=99, hours=1.0, says="Other words.").name == name
    assert make_plan(settings={"lr": 0.5}).name == name  # it is searched
    others = [
        make_plan(settings={"weight_decay": 0.5}),
        make_plan(seeds=[1]),
        make_plan(objective="mAP"),
        make_plan(seed=1),
        make_plan(space={"lr": {"choices": [0.1, 0.2]}}),
    ]
    assert len({name, *(plan.name for plan in others)}) == 6
