"""Trials: proposed, trained, told, one after the other."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from phototag.base.errors import InputError
from phototag.base.files import write_table
from phototag.base.keys import apply_overrides, flatten
from phototag.experiments.recipes import update_params
from phototag.experiments.workspaces import clear_results, run_upstream, save_experiment
from phototag.metrics.selection import best_record, step_number
from phototag.network.inference import pick_device, predict_logits
from phototag.schema.params import Params
from phototag.search import journal
from phototag.search.feasibility import why_infeasible
from phototag.search.journal import (
    FrozenTrial,
    Plan,
    Trial,
    TrialState,
    UpdateFinishedTrialError,
    optuna,
)
from phototag.search.space import propose
from phototag.tracking.provenance import has_died, is_of_this_machine
from phototag.tracking.runs import find_runs
from phototag.tracking.store import FAILURES, connect
from phototag.tracking.studies import PARENT_TAG, log_arrays
from phototag.tracking.training import Stopped
from phototag.training.checkpoint import discard_checkpoint
from phototag.training.records import Record, Trained, Watch

Train = Callable[[Params, Watch, Mapping[str, str]], Trained]

TRIAL_TAG = "phototag.trial"
FAILURES_IN_A_ROW = 10  # after which a study stops
ATTEMPTS = 3  # times that a trial's process may die
IDLE = 100  # proposals in a row that were tried before, or cannot be trained
UNNAMED = 60  # seconds in which a process that asked for a trial puts its name to it
# What the stages before the training read: another value, and they run.
GROUND = ("seed", "data", "sample", "resize", "split", "embed")
GROUND_OF_MODEL = ("name", "weights", "freeze")


def work(plan: Plan, train: Train) -> None:
    """Make trials until the budget is spent, in the workspace that is the present folder.

    Args:
        plan: The study.
        train: The train stage in this process, for given params, watched.

    Raises:
        InputError: Ten trials in a row failed; or nothing can be trained.
    """
    study = journal.open_study(plan.root, plan.name, plan.study)
    ground = ""
    while (trial := next_trial(study, plan)) is not None:
        try:
            with journal.beat(trial):
                ground = run_trial(study, trial, plan, train, ground)
        except UpdateFinishedTrialError:  # two machines had it, as one of them slept
            print(f"trial {trial.number}: another machine had it too, and ended it first")
            ground = ""
        _stop_after_failures(study, plan)


def next_trial(study: "optuna.Study", plan: Plan) -> Trial | None:
    """Return a trial to run: one whose process was killed, or a new one; None after the last.

    What cannot be trained, and what was tried before, is told to Optuna here, at once. Where only
    such are proposed any more, a study with trials has ended.

    Raises:
        InputError: Nothing that is proposed can be trained.
    """
    for _ in range(IDLE):
        with journal.lock_study(plan.name):
            left = _find_left(study)
            if left:
                return left
            trials = study.get_trials(deepcopy=False)
            if is_spent(trials, plan):
                return None
            study.sampler = journal.build_sampler(plan.study, len(trials))
            trial = study.ask()
            journal.note_process(trial)
            settings = propose(trial, plan.study, plan.base)
            trial.set_user_attr(journal.SETTINGS, settings)
            reason = why_infeasible(plan.base, settings, plan.study.compute)
            if reason:
                _tell_infeasible(study, trial, reason)
                continue
            twin = _find_twin(trials, settings)
            if twin is None:
                return trial
            _tell_twin(study, trial, twin)
    if any(journal.is_own(trial) for trial in study.get_trials(deepcopy=False)):
        print(f"the last {IDLE} proposals had all been tried before, or cannot be trained: the end")
        return None
    raise InputError(
        f"{plan.name}: none of {IDLE} proposals can be trained, the last one's reason: {reason}; "
        "mend the space in search.yaml"
    )


def _find_left(study: "optuna.Study") -> Trial | None:
    """Take up a trial of a process that is gone; of another machine's that is silent."""
    silent = journal.list_silent(study)
    for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        process, started = frozen.user_attrs.get(journal.PROCESS), frozen.datetime_start
        unnamed = process is None and (
            started is None or (datetime.now() - started).total_seconds() > UNNAMED
        )
        lost = frozen._trial_id in silent and not is_of_this_machine(process or "")
        if not (unnamed or lost or has_died(process or "")):
            continue
        with suppress(UpdateFinishedTrialError):  # its machine lives, or another was first
            trial = Trial(study, frozen._trial_id)
            if _take_up(study, trial):
                return trial
    return None


def _take_up(study: "optuna.Study", trial: Trial) -> bool:
    """Take up a trial whose process is gone, or fail it; return whether it is to be run."""
    if journal.SETTINGS not in trial.user_attrs:  # killed while it was proposed
        trial.set_user_attr(journal.SAME_AS, trial.number)
    elif trial.user_attrs.get(journal.ATTEMPTS, 0) >= ATTEMPTS:
        reason = f"its process was lost {ATTEMPTS} times: killed, or out of memory"
        trial.set_user_attr(journal.ERROR, reason)
    else:
        journal.note_process(trial)
        return True
    study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
    return False


def is_spent(trials: list[FrozenTrial], plan: Plan) -> bool:
    """Say whether no new trial may begin: so many ran or run, or for so many hours."""
    own = [t for t in trials if journal.is_own(t) and t.state != TrialState.WAITING]
    seconds = sum(trial.user_attrs.get(journal.SECONDS, 0) for trial in own)
    hours = plan.study.hours
    return len(own) >= plan.study.trials or (hours is not None and seconds >= 3600 * hours)


def _find_twin(trials: list[FrozenTrial], settings: Mapping[str, Any]) -> FrozenTrial | None:
    """Return the trial of the same settings, if there was one."""
    same = [
        trial
        for trial in trials
        if trial.user_attrs.get(journal.SETTINGS) == settings and journal.is_own(trial)
    ]
    return same[0] if same else None


def _tell_infeasible(study: "optuna.Study", trial: Trial, reason: str) -> None:
    trial.set_user_attr(journal.INFEASIBLE, reason)
    trial.set_constraint("feasible", 1.0)  # more than 0 is not
    study.tell(trial, state=TrialState.PRUNED)


def _tell_twin(study: "optuna.Study", trial: Trial, twin: FrozenTrial) -> None:
    trial.set_user_attr(journal.SAME_AS, twin.number)
    for step, value in twin.intermediate_values.items():
        trial.report(value, step)
    if twin.state == TrialState.COMPLETE:
        study.tell(trial, twin.value)
    else:  # of one that runs nothing is known yet
        pruned = twin.state == TrialState.PRUNED
        study.tell(trial, state=TrialState.PRUNED if pruned else TrialState.FAIL)


def _stop_after_failures(study: "optuna.Study", plan: Plan) -> None:
    ended = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.datetime_complete is not None
        and trial.datetime_complete.timestamp() >= plan.began
        and journal.is_own(trial)
    ]
    last = sorted(ended, key=lambda trial: trial.datetime_complete)[-FAILURES_IN_A_ROW:]
    failed = [trial for trial in last if trial.state == TrialState.FAIL]
    if len(failed) == FAILURES_IN_A_ROW:
        raise InputError(
            f"{plan.name}: {FAILURES_IN_A_ROW} trials in a row failed; the last one's reason: "
            f"{failed[-1].user_attrs.get(journal.ERROR, 'unknown')}"
        )


def run_trial(study: "optuna.Study", trial: Trial, plan: Plan, train: Train, ground: str) -> str:
    """Train with each seed and tell Optuna the mean; or that it was pruned, or failed, and why.

    What a killed process had done of a trial is not done again.

    Args:
        study: Of Optuna.
        trial: Of it.
        plan: The study.
        train: The train stage.
        ground: What lies before the training in the workspace, of the call before.

    Returns:
        What lies there now.
    """
    began, spent = time.monotonic(), trial.user_attrs.get(journal.SECONDS, 0.0)
    scores = []
    try:
        for seed in plan.study.seeds:
            known = trial.user_attrs.get(f"{journal.RESULT} {seed}")
            if known is None:
                values = apply_overrides(plan.base, trial.user_attrs[journal.SETTINGS])
                values["seed"] = seed
                ground = _prepare(plan, values, ground)
                known = _train_seed(trial, plan, train, values)
                trial.set_user_attr(f"{journal.RESULT} {seed}", known)
                discard_checkpoint(Path(known["checkpoint"]))
            scores.append(known["score"])
        state, told = TrialState.COMPLETE, f"{plan.study.objective} {np.mean(scores):.4f}"
    except Stopped as stopped:
        trial.set_user_attr(journal.CHECKPOINT, str(stopped.checkpoint))
        state, told = TrialState.PRUNED, f"pruned: {trial.user_attrs['epochs']} epochs"
    except Exception as error:  # whatever it is, other settings may do
        state = TrialState.FAIL
        told = " ".join((str(error) or type(error).__name__).split())[:500]
        trial.set_user_attr(journal.ERROR, told)
        told = f"failed: {told}"
        ground = ""
    seconds = time.monotonic() - began
    trial.set_user_attr(journal.SECONDS, spent + seconds)
    value = float(np.mean(scores)) if state == TrialState.COMPLETE else None
    study.tell(trial, value, state=state, skip_if_finished=True)
    settings = ", ".join(
        f"{key} {json.dumps(value)}" for key, value in trial.user_attrs[journal.SETTINGS].items()
    )
    print(f"trial {trial.number}: {told} ({seconds:.1f} s; {settings})", flush=True)
    return ground


def _prepare(plan: Plan, values: Mapping[str, Any], ground: str) -> str:
    """Write params.yaml, and make what lies before the training where it is not as it must be.

    Args:
        plan: The study.
        values: Of params.yaml.
        ground: What lies there so far.

    Returns:
        What lies there now.
    """
    place = Path.cwd()
    path = place / "params.yaml"
    path.write_text(plan.text, encoding="utf-8")
    update_params(path, flatten(values))
    needed = describe_ground(values)
    if needed != ground:
        run_upstream(plan.root, place)
    clear_results(place)
    return needed


def _train_seed(
    trial: Trial, plan: Plan, train: Train, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Train once, as `dvc exp run` would, and make a DVC experiment and an MLflow run of it."""
    place, seed = Path.cwd(), values["seed"]
    name = name_experiment(plan.name, trial.number, seed)
    records: list[dict[str, Any]] = []
    objective = plan.study.objective
    # Of a trial that was killed, Optuna knows the first epochs already.
    told = set(trial.storage.get_trial(trial._trial_id).intermediate_values)
    first = seed == plan.study.seeds[0]

    def watch(epochs: Iterator[Record]) -> Iterator[Record]:
        for epoch in epochs:
            records.append(asdict(epoch))
            yield epoch  # to be recorded, whatever becomes of the trial
            if not first:  # several seeds at one epoch are one score too many
                continue
            if epoch.number not in told:
                trial.report(records[-1][objective], epoch.number)
            if trial.should_prune():
                trial.set_user_attr("epochs", epoch.number)
                raise Stopped

    os.environ["DVC_EXP_NAME"] = name
    tags = {TRIAL_TAG: str(trial.number)} | ({PARENT_TAG: plan.parent} if plan.parent else {})
    try:
        trained = train(Params.model_validate(values), watch, tags)
    except Stopped:
        table = pd.DataFrame(records).drop(columns="images_per_second", errors="ignore")
        write_table(place / "reports/train/history.csv", table)
        save_experiment(place, name, finished=False)
        raise
    save_experiment(place, name, finished=True)
    best = best_record(records)
    result = {"score": best[objective], "epoch": step_number(best), "epochs": len(records)}
    result["checkpoint"] = str(trained.checkpoint)
    return result | {"run": _keep_logits(trained, name)}


def name_experiment(study: str, number: int, seed: int) -> str:
    """Name a trial's DVC experiment and MLflow run."""
    return f"{study}-t{number}-s{seed}"


def describe_ground(values: Mapping[str, Any]) -> str:
    """Return all of params.yaml on which the stages before the training depend, as text."""
    model = {key: values["model"][key] for key in GROUND_OF_MODEL}
    linear_probe_first = values.get("finetune", {}).get("linear_probe_first")
    return json.dumps(
        [{key: values[key] for key in GROUND if key in values}, model, linear_probe_first]
    )


def _keep_logits(trained: Trained, name: str) -> str:
    """Keep what a trial says of val's photos in its run; return the run's id, if there is one."""
    logits = predict_logits(trained.learner, trained.val, pick_device())
    try:
        with connect() as store:
            runs = find_runs(store, trained.key, name)
            if not runs:
                return ""
            log_arrays(
                store,
                runs[0].info.run_id,
                logits=logits.astype(np.float32),
                targets=trained.val.targets,
                groups=np.array(trained.val.groups or trained.val.files),
            )
            return str(runs[0].info.run_id)
    except FAILURES:  # the training has warned of it
        return ""
