"""Storage of studies: the database `studies.db` in the project's root, or PHOTOTAG_STUDIES.

Optuna stores trials, suggestions and values. This module adds the user attributes of phototag, and
queues trials of killed processes again.
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
DEFAULT = "sqlite:///studies.db"  # in the project's root
HEARTBEAT = 30  # seconds between heartbeats of a trial
GRACE_PERIOD = 300  # seconds without a heartbeat, after which a trial counts as killed
MAX_RETRIES = 2  # a trial whose process is killed more often has failed
# User attributes of a trial.
SETTINGS = "settings"  # dotted key of params.yaml -> value
PROCESS = "process"  # name of the process that trains it
SKIPPED = "skipped"  # reason why it was not trained
ERROR = "error"  # message of the exception that ended it
RESULT = "result"  # followed by a seed: score and MLflow run of that training
START = "start"  # attribute of a study: searched key -> value before the first trial
# Groups of params.yaml that change no trial's value; `seeds` replaces the seed.
UNRELATED = ("seed", "embed", "evaluate", "registry")
PRUNERS = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
}


class Plan(BaseModel):
    """A study and what a worker needs to run its trials.

    Attributes:
        name: Name of the study with a hash, see `name_study`.
        study: The study of search.yaml.
        base: Nested values of params.yaml from which trials start.
        root: Root of the project.
        parent: Id of the study's MLflow run.
        worker: Number of the worker, from 0.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    study: Study
    base: dict[str, Any]
    root: Path
    parent: str = ""
    worker: int = 0


def name_study(name: str, study: Study, base: dict[str, Any]) -> str:
    """Return a study's name followed by a hash of what makes its trials comparable.

    The hash covers the search space, objective, seeds, sampler, pruner and all values of
    params.yaml that are not searched.
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
    """Return a lock that all processes of this user on this machine share, also in other clones."""
    # A file of another user in the temporary folder could not be locked.
    return FileLock(Path(tempfile.gettempdir(), f"phototag-{os.getuid()}-{name}.lock"))


def open_study(plan: Plan) -> optuna.Study:
    """Open a study in the database, or create it.

    A relative path of SQLite is relative to the project's root, also in a worker's workspace.

    Raises:
        InputError: The database cannot be used.
    """
    uri = resolve_sqlite(os.environ.get(VARIABLE, "").strip() or DEFAULT, plan.root)
    options = {"connect_args": {"timeout": WAIT}} if uri.startswith("sqlite") else {}
    try:
        # Processes that create the tables at the same time would fail.
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
    except Exception as error:  # SQLAlchemy's, its drivers' and Optuna's exceptions
        reason = hide_password(" ".join(str(error.__cause__ or error).split())[:200])
        raise InputError(
            f"the database of studies {hide_password(uri)} cannot be used ({reason}): check it, or "
            f"set {VARIABLE} to another one, such as postgresql://HOST/NAME"
        ) from error


def build_sampler(study: Study, *seeds: int) -> optuna.samplers.BaseSampler:
    """Build the sampler that suggests settings.

    The seeds differ between workers and restarts, so that these do not suggest the same settings.
    """
    seed = int(content_key([study.seed, *seeds], [])[:8], 16)
    if study.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def retry_trial(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue the settings of a killed trial again; its training resumes from its checkpoint."""
    trial.user_attrs.pop(PROCESS, None)
    RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRIES)(study, trial)


def retry_killed_trials(study: optuna.Study) -> None:
    """Queue trials again whose process was killed; on another machine, after `GRACE_PERIOD`."""
    optuna.storages.fail_stale_trials(study)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if has_died(trial.user_attrs.get(PROCESS, "")):
            # Another worker may do the same at the same time; then Optuna refuses the second.
            with suppress(ValueError, UpdateFinishedTrialError):
                study.tell(trial.number, state=TrialState.FAIL)
                retry_trial(study, trial)


def list_trials(study: optuna.Study) -> list[FrozenTrial]:
    """List the trials without those that were skipped or queued again."""
    trials = study.get_trials(deepcopy=False)
    history = RetryHeartbeatStaleTrialCallback.retry_history
    retried = {number for trial in trials for number in history(trial)}
    return [
        trial for trial in trials if SETTINGS in trial.user_attrs and trial.number not in retried
    ]


def find_best(study: optuna.Study) -> FrozenTrial:
    """Return the complete trial with the best value.

    Raises:
        InputError: No trial is complete; the message has the reason of the last one.
    """
    with suppress(ValueError):  # no trial is complete
        return study.best_trial
    reasons = [t.user_attrs.get(ERROR) or t.user_attrs.get(SKIPPED) for t in study.trials]
    reason = next(filter(None, reversed(reasons)), "run the study first")
    raise InputError(f"{study.study_name} has no complete trial: {reason}")
