"""Trials of a study, which a worker runs in its workspace."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from phototag.base.errors import InputError
from phototag.base.keys import apply_overrides, flatten
from phototag.base.params import read_values
from phototag.experiments import workspaces
from phototag.experiments.dvc_tools import WORKSPACE, read_data_hash
from phototag.experiments.recipes import update_params
from phototag.metrics.selection import best_record
from phototag.network.inference import pick_device, predict_logits
from phototag.schema.params import Params
from phototag.search import storage
from phototag.search.storage import Plan
from phototag.search.studies import find_conflict, suggest_settings
from phototag.tracking.provenance import name_process
from phototag.tracking.runs import find_runs
from phototag.tracking.store import FAILURES, connect
from phototag.tracking.studies import PARENT_TAG, log_arrays
from phototag.tracking.training import Stopped
from phototag.training.checkpoint import discard_checkpoint
from phototag.training.records import Record, Trained, Watch

Train = Callable[[Params, Watch, Mapping[str, str]], Trained]

TRIAL_TAG = "phototag.trial"
MAX_FAILURES = 10  # the study stops after this many failed trials in a row
MAX_SKIPPED = 100  # after this many skipped trials in a row, the search space is exhausted


def run_trials(plan: Plan, train: Train) -> None:
    """Run trials in the current folder (a workspace) until the study's budget is used up.

    The function `train` runs the stage `train`. It takes the params, a function that wraps the
    iterator of epochs, and tags for the MLflow run.

    Raises:
        InputError: `MAX_FAILURES` trials in a row have failed.
    """
    study = storage.open_study(plan)
    optuna.logging.set_verbosity(optuna.logging.INFO)  # print one line per trial
    num_trials = len(study.get_trials(deepcopy=False))
    study.sampler = storage.build_sampler(plan.study, plan.worker, num_trials)
    storage.retry_killed_trials(study)
    objective = Objective(plan, train)
    # Check before the first trial that photos and labels have not changed.
    objective.prepare(study, apply_overrides(plan.base, {"seed": plan.study.seeds[0]}))

    def stop_at_end(study: optuna.Study, trial: FrozenTrial) -> None:
        last = storage.list_trials(study)[-MAX_FAILURES:]
        if len(last) == MAX_FAILURES and all(each.state == TrialState.FAIL for each in last):
            error = last[-1].user_attrs.get(storage.ERROR)
            raise InputError(f"{MAX_FAILURES} trials in a row failed; the last error was: {error}")
        storage.retry_killed_trials(study)
        if is_finished(study, plan):
            study.stop()

    if not is_finished(study, plan):
        study.optimize(objective, catch=(Exception,), callbacks=[stop_at_end])


def is_finished(study: optuna.Study, plan: Plan) -> bool:
    """Return whether the study's budget is used up or its search space is exhausted."""
    every = study.get_trials(deepcopy=False)
    if any(trial.state == TrialState.WAITING for trial in every):
        return False
    last = every[-MAX_SKIPPED:]
    if len(last) == MAX_SKIPPED and all(storage.SKIPPED in each.user_attrs for each in last):
        return True
    trials = storage.list_trials(study)
    hours = sum(trial.duration.total_seconds() for trial in trials if trial.duration) / 3600
    return len(trials) >= plan.study.trials or hours >= (plan.study.hours or np.inf)


class Objective:
    """Objective function of a study. A call trains one model per seed with suggested settings.

    Attributes:
        upstream_keys: Keys and groups in params.yaml on which the stages before `train` depend.
        upstream: Values of `upstream_keys` in the last run of these stages in the workspace.
    """

    def __init__(self, plan: Plan, train: Train) -> None:
        self.plan, self.train = plan, train
        stages = read_values(Path("dvc.yaml"))["stages"]
        before_train = takewhile(lambda name: name != "train", stages)
        keys = [key for name in before_train for key in stages[name].get("params", [])]
        self.upstream_keys = tuple(f"{key}." for key in keys)
        self.upstream: dict[str, Any] = {}

    def __call__(self, trial: optuna.Trial) -> float:
        """Run one trial, and return its objective, averaged over the seeds."""
        trial.set_user_attr(storage.PROCESS, name_process())
        try:
            settings = suggest_settings(trial, self.plan.study.space)
            # Without the lock, two workers could both start to train the same settings.
            with storage.lock_study(self.plan.name):
                if skipped := self._find_reason_to_skip(trial, settings):
                    trial.set_user_attr(storage.SKIPPED, skipped)
                    raise optuna.TrialPruned(skipped)
                trial.set_user_attr(storage.SETTINGS, settings)
            return float(np.mean([self._score(trial, seed) for seed in self.plan.study.seeds]))
        except optuna.TrialPruned:
            raise
        except Exception as error:
            self.upstream = {}
            reason = " ".join(str(error).split()) or type(error).__name__
            trial.set_user_attr(storage.ERROR, reason[:500])
            raise

    def _find_reason_to_skip(self, trial: optuna.Trial, settings: Mapping[str, Any]) -> str:
        conflict = find_conflict(self.plan.base, settings)
        if conflict:
            return conflict
        earlier = [t for t in storage.list_trials(trial.study) if t.number != trial.number]
        for other in earlier:
            if other.user_attrs[storage.SETTINGS] == settings:
                return f"it has the same settings as trial {other.number}"
        budget = self.plan.study.trials
        return f"the study already has {budget} trials" if len(earlier) >= budget else ""

    def _score(self, trial: optuna.Trial, seed: int) -> float:
        """Return the objective in the best epoch for a seed. Train if there is no result yet."""
        key = f"{storage.RESULT} {seed}"
        if key not in trial.user_attrs:
            settings = trial.user_attrs[storage.SETTINGS] | {"seed": seed}
            values = apply_overrides(self.plan.base, settings)
            self.prepare(trial.study, values)
            trial.set_user_attr(key, self._train(trial, values))
        return float(trial.user_attrs[key]["score"])

    def prepare(self, study: optuna.Study, values: Mapping[str, Any]) -> None:
        """Write params.yaml. Run the stages before `train` if their params have changed.

        Raises:
            InputError: A stage failed, or the photos or labels are not those of the study.
        """
        flat = flatten(values)
        update_params(Path.cwd() / "params.yaml", flat)
        needed = {key: flat[key] for key in flat if f"{key}.".startswith(self.upstream_keys)}
        if needed != self.upstream:
            workspaces.run_upstream(Path.cwd())
            current, name = read_data_hash(Path.cwd(), WORKSPACE), f"{storage.DATA} {flat['seed']}"
            if study.user_attrs.get(name, current) != current:
                raise InputError(
                    "the photos, labels or corrections have changed since the first trial of this "
                    "study: restore them, or start a new study by renaming this one in search.yaml"
                )
            study.set_user_attr(name, current)
            self.upstream = needed

    def _train(self, trial: optuna.Trial, values: Mapping[str, Any]) -> dict[str, Any]:
        """Train once, and save a DVC experiment. Return the score and the id of the MLflow run."""
        plan, seed = self.plan, values["seed"]
        name = f"{plan.name}-t{trial.number}-s{seed}"
        records: list[Record] = []

        def watch(epochs: Iterator[Record]) -> Iterator[Record]:
            for epoch in epochs:
                records.append(epoch)
                yield epoch  # first log the epoch, because the trial may be pruned below
                # Optuna accepts one value per epoch, so only the first seed is reported.
                if seed == plan.study.seeds[0]:
                    trial.report(epoch[plan.study.objective], len(records))
                    if trial.should_prune():
                        raise Stopped

        os.environ["DVC_EXP_NAME"] = name
        tags = {TRIAL_TAG: str(trial.number), PARENT_TAG: plan.parent}
        try:
            trained = self.train(Params.model_validate(values), watch, tags)
        except Stopped as stopped:
            raise optuna.TrialPruned(f"after epoch {len(records)}") from stopped
        workspaces.commit_training(Path.cwd())
        workspaces.save_experiment(Path.cwd(), name)
        discard_checkpoint(trained.checkpoint)
        score = best_record(records)[plan.study.objective]
        return {"score": score, "run": _log_predictions(trained, name)}


def _log_predictions(trained: Trained, name: str) -> str:
    """Log the held-out logits to a trial's MLflow run. Return its id, or "" without a run."""
    logits = trained.out_of_fold
    if logits is None:
        logits = predict_logits(trained.learner, trained.val, pick_device()).astype(np.float32)
    groups = np.array(trained.val.groups or trained.val.files)
    with suppress(*FAILURES), connect() as store:  # training has printed a warning
        for run in find_runs(store, trained.key, name)[:1]:
            arrays = {"logits": logits, "targets": trained.val.targets, "groups": groups}
            log_arrays(store, run.info.run_id, **arrays)
            return str(run.info.run_id)
    return ""
