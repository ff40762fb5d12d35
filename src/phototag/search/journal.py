"""The journal of a study: Optuna's storage, `studies.db` in the repository's root.

`PHOTOTAG_STUDIES` names another database, such as one on PostgreSQL, which several machines share.
"""

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, cast

from filelock import FileLock
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from phototag.base.errors import InputError
from phototag.base.files import content_key
from phototag.base.keys import flatten
from phototag.search.studies import Study
from phototag.tracking.provenance import name_process
from phototag.tracking.store import WAIT, hide_password, resolve_sqlite, sqlite_uri

try:
    import optuna
    from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, Trial, TrialState
except ModuleNotFoundError as error:
    raise InputError("`phototag tune` needs Optuna: run `make setup-tune`") from error

if TYPE_CHECKING:
    from optuna.storages._heartbeat import BaseHeartbeat

__all__ = ["FrozenTrial", "Trial", "TrialState", "UpdateFinishedTrialError", "optuna"]

VARIABLE = "PHOTOTAG_STUDIES"
BEAT = 30  # seconds between the signs of life of a trial's process
SILENCE = 300  # seconds without one, after which other machines take the trial up
# What is noted of a trial besides what Optuna knows of it.
SETTINGS = "settings"  # dotted key of params.yaml -> value
PROCESS = "process"  # who trains it
ATTEMPTS = "attempts"  # how many took it up
SECONDS = "seconds"  # that it took, of all who took it up
SAME_AS = "same as"  # number of the trial that was proposed before
INFEASIBLE = "infeasible"  # why
ERROR = "error"
CHECKPOINT = "checkpoint"  # where a pruned one's state is
RESULT = "result"  # + seed -> epoch, score and run of a training
BASE = "base"  # of a study: values of params.yaml with which trials start
# Params that decide nothing of what trials have in common.
ASIDE = ("seed", "embed", "evaluate", "registry")


class Plan(BaseModel):
    """A study as its trials are made: on what, from what, for whom.

    Attributes:
        name: Of the study, with a hash of all that makes trials comparable.
        study: Of search.yaml.
        base: The values of params.yaml with which trials start.
        text: params.yaml as it stands, for its comments.
        root: The project.
        parent: The MLflow run of the study; empty where the store could not be reached.
        began: When these workers started, seconds since 1970.
        worker: Number of the worker, from 0.
    """

    model_config = ConfigDict(frozen=True)
    name: str
    study: Study
    base: dict[str, Any]
    text: str
    root: Path
    parent: str = ""
    began: float
    worker: int = 0


def name_study(name: str, study: Study, base: dict[str, Any]) -> str:
    """Name a study by what makes its trials comparable.

    Another space, objective or seed, and other params that are not searched, make another study;
    its budget does not, nor do the values from which searched keys start.
    """
    settings = {
        key: value
        for key, value in flatten(base).items()
        if key not in study.space and key.partition(".")[0] not in ASIDE
    }
    aside = {"says", "recipe", "settings", "trials", "hours", "compute"}
    own = study.model_dump(mode="json", exclude=aside)
    return f"{name}-{content_key([own, settings], [])[:8]}"


def journal_uri(root: Path) -> str:
    """Return the address of the database: `PHOTOTAG_STUDIES`, or the file in the root.

    A relative path counts from the root, also in a worker's copy of the repository.
    """
    given = os.environ.get(VARIABLE, "").strip()
    return resolve_sqlite(given, root) if given else sqlite_uri(root / "studies.db")


@contextmanager
def lock_study(name: str) -> Iterator[None]:
    """Let one process of this machine at a time choose what is tried next.

    It is the machine's, not the project's: several clones may share a study. Each user has an own,
    because /tmp lets nobody lock another's files.
    """
    with FileLock(Path(tempfile.gettempdir(), f"phototag-{os.getuid()}-{name}.lock")):
        yield


def open_study(root: Path, name: str, study: Study) -> "optuna.Study":
    """Open a study in the journal; what is missing of it is made.

    Raises:
        InputError: The database cannot be used.
    """
    uri = journal_uri(root)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    # `beat` does what `Study.optimize` would.
    warnings.filterwarnings("ignore", "Heartbeat of storage", UserWarning)
    options = {"connect_args": {"timeout": WAIT}} if uri.startswith("sqlite") else {}
    with lock_study("journal"), explain_failures(uri):
        return optuna.create_study(
            storage=RDBStorage(
                uri, engine_kwargs=options, heartbeat_interval=BEAT, grace_period=SILENCE
            ),
            study_name=name,
            direction="maximize" if study.rises else "minimize",
            pruner=build_pruner(study),
            load_if_exists=True,
        )


@contextmanager
def explain_failures(uri: str) -> Iterator[None]:
    """Tell in one sentence what fails in the journal."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, ImportError, RuntimeError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = " ".join(str(cause or error).split())[:200]
        known = isinstance(error, ArgumentError | ImportError | ValueError)
        raise InputError(
            f"the studies in {hide_password(uri)} cannot be used ({hide_password(reason)}): "
            + (
                f"let {VARIABLE} name a database, such as postgresql://HOST/NAME"
                if known
                else f"see to that database, or let {VARIABLE} name another one"
            )
        ) from error


def build_sampler(study: Study, drawn: int) -> "optuna.samplers.BaseSampler":
    """Build what proposes settings.

    Args:
        study: The study.
        drawn: With the study's seed, it decides what is drawn: a worker that starts anew must not
            propose again what was proposed at first.
    """
    seed = int(content_key([study.seed, drawn], [])[:8], 16)
    if study.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    # group: keys that are proposed together are modelled together, and some only stand with others.
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)


def build_pruner(study: Study) -> "optuna.pruners.BasePruner":
    """Build what ends trials early."""
    match study.pruner:
        case "none":
            return optuna.pruners.NopPruner()
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
        case "hyperband":
            return optuna.pruners.HyperbandPruner(min_resource=2)


def is_own(trial: FrozenTrial) -> bool:
    """Tell a trial that was run, or runs, from one that was told at once."""
    return SAME_AS not in trial.user_attrs and INFEASIBLE not in trial.user_attrs


def pick_best(trials: list[FrozenTrial], study: Study) -> FrozenTrial | None:
    """Return the best trial that came to its end; of equal ones the first."""
    done = [t for t in trials if t.state == TrialState.COMPLETE and is_own(t)]
    sign = -1 if study.rises else 1
    return min(done, key=lambda trial: (sign * score_of(trial), trial.number), default=None)


def score_of(trial: FrozenTrial) -> float:
    """Return what a trial that came to its end is worth."""
    assert trial.value is not None
    return float(trial.value)


def note_process(trial: Trial) -> None:
    """Note that this process takes a trial up."""
    _beat_once(trial)  # first: who looks meanwhile must not find it silent
    trial.set_user_attr(PROCESS, name_process())
    trial.set_user_attr(ATTEMPTS, trial.user_attrs.get(ATTEMPTS, 0) + 1)


@contextmanager
def beat(trial: Trial) -> Iterator[None]:
    """Tell the journal meanwhile, twice a minute, that a trial's process lives."""
    ended = Event()

    def tell() -> None:
        while not ended.wait(BEAT):
            with suppress(SQLAlchemyError, StorageInternalError):  # it may come back
                _beat_once(trial)

    thread = Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _beat_once(trial: Trial) -> None:
    cast("BaseHeartbeat", trial.storage).record_heartbeat(trial._trial_id)


def list_silent(study: "optuna.Study") -> set[int]:
    """List the ids of running trials whose process was not heard of for `SILENCE`."""
    return set(cast("BaseHeartbeat", study._storage)._get_stale_trial_ids(study._study_id))
