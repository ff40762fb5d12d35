"""The MLflow store: its address, how it is opened, and a description of its failures.

The default store is `mlflow.db` in the project's root, with artifacts in `mlartifacts/` next to it.
`MLFLOW_TRACKING_URI` names another store.
"""

import json
import os
import re
from functools import cached_property
from pathlib import Path

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy import Connection, NullPool, create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from phototag.base.errors import InputError
from phototag.base.files import project_root

DEFAULT = "sqlite:///mlflow.db"  # in the project's root
EXPERIMENT = "phototag"
ARTIFACTS = "mlartifacts"
WAIT = 20  # seconds to wait for a database that another process has locked, as MLflow does
NOTE_TAG = "mlflow.note.content"
VIEW = "phototag"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
# By default MLflow's table of runs shows no params and no metrics.
COLUMNS = (
    "attributes.`Created`",
    "metrics.`best_val_loss`",
    "metrics.`test_f1_micro`",
    "metrics.`test_f1_macro`",
    "params.`lr`",
    "params.`weight_decay`",
    "params.`optimizer`",
)
DESCRIPTION = """One run for each training of this project, by `dvc repro` or as a DVC experiment.

- `val_loss`, `f1_micro`, `f1_macro`: metrics on val at threshold 0.5, one value per epoch.
- `best_*`: metrics of the best epoch, whose weights are saved (lowest `val_loss`).
- `test_*`: metrics on test at the thresholds chosen on val.
- Artifacts: `evaluate/report.html` (start here), figures, tables and the registered model.
- `phototag.content_key`: hash of the params, data and code of a training. Runs with the same key
  trained the same model.
"""
# Columns of MLflow's tables that hold locations of artifacts.
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


class StoreError(InputError):
    """The store cannot be used."""


# Exceptions of a failing store. Connection errors are OSErrors.
FAILURES = (StoreError, MlflowException, SQLAlchemyError, OSError)


class Store:
    """An MLflow store with the project's experiment, opened at first use.

    In a `with` block, every failure of the store is raised as a StoreError of one sentence.

    Args:
        uri: Address of the store.
        lock: Lock for changes that processes must make one after the other.
    """

    def __init__(self, uri: str, lock: FileLock) -> None:
        self.uri, self.lock = uri, lock

    @cached_property
    def client(self) -> MlflowClient:
        """Client of the store."""
        try:
            with self.lock:
                return _open(self.uri)
        except Exception as error:  # drivers, migrations and JSON parsers raise their own errors
            raise StoreError(describe_failure(error, self.uri)) from error

    @cached_property
    def experiment_id(self) -> str:
        """Id of the MLflow experiment `phototag`."""
        return str(self.client.get_experiment_by_name(EXPERIMENT).experiment_id)

    def __enter__(self) -> "Store":
        _ = self.client
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, FAILURES) and not isinstance(error, InputError):
            raise StoreError(describe_failure(error, self.uri)) from error


def connect() -> Store:
    """Return the project's store; a missing database is created at first use."""
    return Store(store_uri(), FileLock(project_root() / ".dvc" / "tmp" / "mlflow.lock"))


def store_uri() -> str:
    """Return the address in `MLFLOW_TRACKING_URI`, or that of the default store."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    return resolve_sqlite(uri or DEFAULT, project_root())


def resolve_sqlite(uri: str, root: Path) -> str:
    """Return an address in which a relative SQLite path starts at the project's root.

    A path relative to the working directory could be in the copy of a queued or --temp
    experiment, which DVC deletes. Other addresses are returned unchanged.
    """
    # `////` starts an absolute path, and `:memory:` and `file:` start no path.
    if not re.match(r"sqlite[+\w]*:///(?!/|:memory:|file:|$)", uri):
        return uri
    return uri.replace("///", f"///{root}/", 1)


def _open(uri: str) -> MlflowClient:
    """Open the store, and create the database and the experiment if they are missing.

    The caller holds the lock: processes that migrate one new SQLite file at the same time fail.
    """
    is_database = uri.startswith(("sqlite", "postgresql", "mysql", "mssql"))
    location = _prepare_database(uri) if is_database else None
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    if client.get_experiment_by_name(EXPERIMENT) is None:
        client.create_experiment(EXPERIMENT, location)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    tags = {NOTE_TAG: DESCRIPTION, VIEW_TAG: json.dumps({"selectedColumns": COLUMNS})}
    for name, value in tags.items():
        if name not in experiment.tags:  # a user may have changed it
            client.set_experiment_tag(experiment.experiment_id, name, value)
    return client


def _prepare_database(uri: str) -> str:
    """Check that a database answers and return the location of its artifacts.

    MLflow itself retries for two minutes before it reports that a database does not answer. The
    location is absolute because a relative one could be in an experiment's copy: it is next to a
    SQLite file, and in the project's root for any other database.
    """
    is_sqlite = uri.startswith("sqlite")
    database = Path(make_url(uri).database or "").absolute()
    folder = database.parent if is_sqlite else project_root()
    folder.mkdir(parents=True, exist_ok=True)
    location = (folder / ARTIFACTS).as_uri()
    with create_engine(uri, poolclass=NullPool).begin() as connection:
        if is_sqlite and "experiments" in inspect(connection).get_table_names():
            _move_artifacts(connection, location)
    return location


def _move_artifacts(connection: Connection, location: str) -> None:
    """Update the locations of artifacts if the store's folder was renamed or copied.

    MLflow stores absolute locations and has no command to change them.
    """
    query = text("SELECT artifact_location FROM experiments WHERE name = :name")
    former = connection.execute(query, {"name": EXPERIMENT}).scalar() or ""
    if former == location or not former.endswith(f"/{ARTIFACTS}"):
        return
    for table, column in LOCATIONS:
        connection.execute(
            text(f"UPDATE {table} SET {column} = replace({column}, :former, :location)"),
            {"former": former, "location": location},
        )


def hide_password(uri: str) -> str:
    """Return an address or a message without user names and passwords."""
    # The last @ ends the password, which may contain one; three slashes begin a file path.
    return re.sub(r"(?<!/)//(?!/)\S*@", "//***@", uri)


def describe_failure(error: BaseException, uri: str) -> str:
    """Describe in one sentence why the store failed, without passwords."""
    if isinstance(error, InputError):
        return str(error)
    # The innermost OSError has the shortest reason, such as "Connection refused".
    inner = error.__cause__ or error.__context__
    while inner:
        error = inner if isinstance(inner, OSError) else error
        inner = inner.__cause__ or inner.__context__
    reason = hide_password(str(error).partition("\n")[0] or type(error).__name__)
    return (
        f"MLflow at {hide_password(uri)} failed ({reason[:300]}): check MLFLOW_TRACKING_URI and "
        "that its server or database can be used"
    )
