"""MLflow store: functions that find its address, open it, and describe its failures.

The default store is the SQLite file `mlflow.db` in the project's root, with artifacts in the folder
`mlartifacts/` next to it. Set the environment variable `MLFLOW_TRACKING_URI` to use another store.
"""

import json
import os
import re
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy import Connection, NullPool, create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from phototag.base.errors import InputError
from phototag.base.files import project_root

DEFAULT = "sqlite:///mlflow.db"  # the path is relative to the project's root
EXPERIMENT = "phototag"
ARTIFACTS = "mlartifacts"
WAIT = 20  # seconds to wait for a locked database, same value as in MLflow
NOTE_TAG = "mlflow.note.content"
VIEW = "phototag"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
# Without this setting, MLflow's table of runs shows neither params nor metrics.
COLUMNS = (
    "attributes.`Created`",
    "metrics.`best_val_loss`",
    "metrics.`test_f1_micro`",
    "metrics.`test_f1_macro`",
    "params.`lr`",
    "params.`weight_decay`",
    "params.`optimizer`",
)
DESCRIPTION = """One run per training of this project, by `dvc repro` or in a DVC experiment.

- `val_loss`, `f1_micro`, `f1_macro`: metrics on val at a threshold of 0.5, one value per epoch.
- `best_*`: metrics of the best epoch, whose weights are saved.
- `test_*`: metrics on test at the thresholds that were chosen on val. If there is no test split,
  `final_val_*`: the same metrics on val. They are too high, because the model was selected on val.
- Artifacts: `evaluate/report.html` (start here), figures, tables and the registered model.
- `phototag.content_key`: hash of the params, data and code of the training. Runs with the same key
  have trained the same model.
"""
# Columns in MLflow's database that contain the absolute paths of artifacts.
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


class StoreError(InputError):
    """Error that is raised if the MLflow store cannot be used."""


# Exceptions that a failure of the store can raise. Connection errors are subclasses of OSError.
FAILURES = (StoreError, MlflowException, SQLAlchemyError, OSError)


class Store:
    """MLflow store with the project's MLflow experiment. The store is opened at its first use.

    In a `with` block, every failure of the store is raised as a StoreError with a short message.

    Args:
        uri: Address of the store, such as `sqlite:////folder/mlflow.db` or `http://host:5000`.
        lock: Lock to hold during changes that only one process may make at a time.
    """

    def __init__(self, uri: str, lock: FileLock) -> None:
        self.uri, self.lock = uri, lock

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow client of the store. The first access opens the store."""
        try:
            with self.lock:
                return _open(self.uri)
        except Exception as error:  # drivers, migrations and JSON parsers raise other exceptions
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
    """Return the project's store. A missing database is created when the store is first used."""
    return Store(store_uri(), FileLock(project_root() / ".dvc" / "tmp" / "mlflow.lock"))


def store_uri() -> str:
    """Return the value of `MLFLOW_TRACKING_URI`, or the address of the default store."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    return resolve_sqlite(uri or DEFAULT, project_root())


def resolve_sqlite(uri: str, root: Path) -> str:
    """Return an address in which a relative SQLite path is resolved against the project's root.

    DVC runs a queued or `--temp` experiment in a copy of the project, which it deletes afterwards.
    With a relative path, the database would be in this copy. Other addresses are not changed.
    """
    # Four slashes start an absolute path. `:memory:` and `file:` are not paths.
    if not re.match(r"sqlite[+\w]*:///(?!/|:memory:|file:|$)", uri):
        return uri
    path, mark, query = uri.partition("///")[2].partition("?")
    return sqlite_uri(root / path) + mark + query


def sqlite_uri(path: Path) -> str:
    """Return the SQLAlchemy address of a SQLite file. `?` and `%` in its path are escaped."""
    uri = f"sqlite:///{path}"
    if make_url(uri).database == str(path):
        return uri
    # For a plain `sqlite:` address, MLflow would create parent folders with the escaped names.
    return f"sqlite+pysqlite:///{quote(str(path))}"


def _open(uri: str) -> MlflowClient:
    """Open the store. Create its database and MLflow experiment if they are missing.

    The caller must hold the lock, because MLflow fails if two processes create the tables of the
    same SQLite file at the same time.
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
        if name not in experiment.tags:  # a user may have changed the value of an existing tag
            client.set_experiment_tag(experiment.experiment_id, name, value)
    return client


def _prepare_database(uri: str) -> str:
    """Check that a database responds, and return the location of its artifacts.

    Without this check, MLflow would retry for two minutes if a database does not respond. Artifacts
    are stored next to a SQLite file. For any other database, they are stored in the project's root.
    The location is absolute: in an experiment, a relative path starts from a copy of the project.
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
    """Update the locations of artifacts if the folder of the store was moved or copied.

    MLflow stores these locations as absolute paths, and has no command to change them.
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
    """Return an address or a message in which user names and passwords are replaced by `***`."""
    # A password may contain `@`, so it ends at the last `@`. Three slashes start a file path.
    return re.sub(r"(?<!/)//(?!/)\S*@", "//***@", uri)


def describe_failure(error: BaseException, uri: str) -> str:
    """Return one sentence on why the store failed. Passwords are replaced by `***`."""
    if isinstance(error, InputError):
        return str(error)
    # The innermost OSError has the shortest message, such as "Connection refused".
    inner = error.__cause__ or error.__context__
    while inner:
        error = inner if isinstance(inner, OSError) else error
        inner = inner.__cause__ or inner.__context__
    reason = hide_password(str(error).partition("\n")[0] or type(error).__name__)
    return (
        f"MLflow at {hide_password(uri)} failed ({reason[:300]}): check the environment variable "
        "MLFLOW_TRACKING_URI, and that this server or database is running"
    )
