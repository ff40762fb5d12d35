"""Storage of studies: a database in which Optuna stores trials, suggestions and values.

The default database is `studies.db` in the project's root. Set the environment variable
`PHOTOTAG_STUDIES` to use another database. This module also defines the user attributes that
phototag adds to trials. If a process is killed, this module queues its trial again.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel, ConfigDict

from phototag.base.errors import InputError
from phototag.base.files import content_key
from phototag.base.keys import flatten
from phototag.search.studies import Study
from phototag.tracking.provenance import has_died
from phototag.tracking.store import WAIT, hide_password, resolve_sqlite

VARIABLE = "PHOTOTAG_STUDIES"
DEFAULT = "sqlite:///studies.db"  # the path is relative to the project's root
HEARTBEAT = 30  # seconds between heartbeats of a trial
GRACE_PERIOD = 300  # a trial with no heartbeat for this many seconds is regarded as killed
MAX_RETRIES = 2  # a trial fails if its process is killed more often than this
# User attributes of a trial.
SETTINGS = "settings"  # mapping from dotted keys of params.yaml to values
PROCESS = "process"  # process that trains the trial, as named by `name_process`
SKIPPED = "skipped"  # reason why the trial was not trained
ERROR = "error"  # message of the exception that ended the trial
RESULT = "result"  # prefix before a seed; the value has this seed's score and MLflow run
KILLS = "kills"  # number of times that the process of the trial was killed
DATA = "data"  # prefix before a seed, in a study; the value is the hash of photos and labels
START = "start"  # attribute of a study: values of the searched keys before the first trial
# Params that do not affect a study's objective. The study's `seeds` replace the param `seed`.
UNRELATED = ("recipe", "seed", "embed", "evaluate", "registry")
PRUNERS = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
}


class Plan(BaseModel):
    """Study together with the information that a worker needs to run its trials.

    Attributes:
        name: Name of the study, followed by a hash, as returned by `name_study`.
        study: Definition of the study in search.yaml.
        base: Nested params that all trials start from.
        root: Root of the project.
        parent: Id of the study's parent run in MLflow.
        worker: Number of the worker, starting from 0.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    study: Study
    base: dict[str, Any]
    root: Path
    parent: str = ""
    worker: int = 0


def name_study(name: str, study: Study, base: dict[str, Any]) -> str:
    """Return the name of a study, followed by a hash of what its trials have in common.

    The hash covers the search space, the objective, the seeds, the sampler, the pruner and all
    params that are not searched. Therefore, trials with the same hash are comparable.
    """
    fixed = {
        key: value
        for key, value in flatten(base).items()
        if key not in study.space and key.partition(".")[0] not in UNRELATED
    }
    ignored = {"description", "recipe", "settings", "trials", "hours"}
    own = study.model_dump(mode="json", exclude=ignored)
    return f"{name}-{content_key([own, fixed], [])[:8]}"


def lock_study(name: str) -> FileLock:
    """Return a lock that all processes of this user on this machine share, in all clones."""
    # The user's id is part of the name, because users cannot lock the files of other users.
    return FileLock(Path(tempfile.gettempdir(), f"phototag-{os.getuid()}-{name}.lock"))


def open_study(plan: Plan) -> optuna.Study:
    """Open a study in the database, or create it if it does not exist.

    A relative SQLite path is resolved against the project's root, even in a worker's workspace.

    Raises:
        InputError: The database cannot be used.
    """
    uri = resolve_sqlite(os.environ.get(VARIABLE, "").strip() or DEFAULT, plan.root)
    options = {"connect_args": {"timeout": WAIT}} if uri.startswith("sqlite") else {}
    try:
        # Optuna fails if two processes create the tables at the same time.
        with lock_study("storage"):
            storage = RDBStorage(
                uri,
                engine_kwargs=options,
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE_PERIOD,
                heartbeat_stale_trial_callback=retry_trial,
            )
            return optuna.create_study(
                storage=storage,
                study_name=plan.name,
                sampler=build_sampler(plan.study, plan.worker, 0),
                pruner=PRUNERS[plan.study.pruner](),
                direction=plan.study.direction,
                load_if_exists=True,
            )
    except Exception as error:  # SQLAlchemy, its drivers and Optuna raise various exceptions
        reason = hide_password(" ".join(str(error.__cause__ or error).split())[:200])
        raise InputError(
            f"the database of studies {hide_password(uri)} cannot be used ({reason}): fix it, or "
            f"set {VARIABLE} to another database, such as postgresql://HOST/NAME"
        ) from error


def build_sampler(study: Study, *seeds: int) -> optuna.samplers.BaseSampler:
    """Build the sampler that suggests settings for trials.

    Each worker needs different `seeds`, and new ones after a restart. Otherwise, the sampler would
    suggest the same settings again.
    """
    seed = int(content_key([study.seed, *seeds], [])[:8], 16)
    if study.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def retry_trial(study: optuna.Study, trial: FrozenTrial, killed: bool = True) -> None:
    """Queue a trial again with the same settings, so that it resumes from its checkpoint.

    If its process was killed more than `MAX_RETRIES` times, the trial is not queued again.
    """
    trial.user_attrs.pop(PROCESS, None)
    trial.user_attrs[KILLS] = trial.user_attrs.get(KILLS, 0) + killed
    if trial.user_attrs[KILLS] <= MAX_RETRIES:
        RetryHeartbeatStaleTrialCallback()(study, trial)


def retry_killed_trials(study: optuna.Study, killed: bool = True) -> None:
    """Queue trials again if their process has ended.

    A process on another machine is regarded as killed after `GRACE_PERIOD` without a heartbeat. If
    the study was stopped as a whole, for example with Ctrl-C, `killed` is false.
    """
    optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if has_died(trial.user_attrs.get(PROCESS, "")):
            # If two workers queue the same trial, Optuna raises an error in one of them.
            with suppress(ValueError, UpdateFinishedTrialError):
                study.tell(trial.number, state=TrialState.FAIL)
                retry_trial(study, trial, killed)


def list_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return all trials that were neither skipped nor queued again after they were killed."""
    trials = study.get_trials(deepcopy=False)
    history = RetryHeartbeatStaleTrialCallback.retry_history
    retried = {number for trial in trials for number in history(trial)}
    return [
        trial for trial in trials if SETTINGS in trial.user_attrs and trial.number not in retried
    ]


def find_best(study: optuna.Study) -> FrozenTrial:
    """Return the complete trial with the best objective.

    Raises:
        InputError: No trial is complete. The message quotes the error of the last trial.
    """
    with suppress(ValueError):  # raised by Optuna if no trial is complete
        return study.best_trial
    reasons = [t.user_attrs.get(ERROR) or t.user_attrs.get(SKIPPED) for t in study.trials]
    reason = next(filter(None, reversed(reasons)), "run the study first")
    raise InputError(f"{study.study_name} has no complete trial: {reason}")
