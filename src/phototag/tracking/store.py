"""MLflow store: functions that find its address, open it, and describe its failures.

The default store is the SQLite file `mlflow.db` in the project's root, with artifacts in the folder
`mlartifacts/` next to it. Set the environment variable `MLFLOW_TRACKING_URI` to use another store.
"""

import json
import os
import re
import sys
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, unquote

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from phototag.base.errors import InputError
from phototag.base.files import check_folder, project_root
from phototag.tracking.description import DATASET_TAG, NOTE_TAG, PHOTOS_TAG, RECIPE_TAG
from phototag.tracking.naming import project_name

DEFAULT = "sqlite:///mlflow.db"  # the path is relative to the project's root
ARTIFACTS = "mlartifacts"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
WAIT = 20  # seconds to wait for a locked database, same value as in MLflow
VIEW = "phototag"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
# Without this setting, MLflow's table of runs shows neither params nor metrics.
COLUMNS = (
    "attributes.`Created`",
    "metrics.`best_val_loss`",
    "metrics.`test_f1_micro`",
    "metrics.`test_f1_macro`",
    "metrics.`cross_validation_f1_micro`",
    "metrics.`cross_validation_f1_macro`",
    f"tags.`{DATASET_TAG}`",
    f"tags.`{PHOTOS_TAG}`",
    f"tags.`{RECIPE_TAG}`",
    "params.`lr`",
)
DESCRIPTION = """One run per training of this project, by `dvc repro` or in a DVC experiment.

- `val_loss`, `f1_micro`, `f1_macro`: metrics on val at a threshold of 0.5, one value per epoch. For
  a linear probe: metrics on train and val, out of fold, one value per L2 strength. Each label has
  its best strength so far.
- `best_*`: metrics of the best epoch, whose weights are saved. For a linear probe, `best_l2` is the
  lowest L2 strength of a label.
- `test_*`: metrics on test at the chosen thresholds.
- `final_val_*`: the same metrics on val, if there is no test split. They are usually too high,
  because the model was selected on val.
- `cross_validation_*`: the same metrics of a linear probe by nested cross-validation of train and
  val, if there is no test split.
- `dataset`, `photos`, `recipe`: what the model was trained on, and how.
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
        name: Name of the MLflow experiment and of the registered model.
        lock: Lock to hold during changes that only one process may make at a time.
        registry: Address of the model registry (default: `uri`).
    """

    def __init__(self, uri: str, name: str, lock: FileLock, registry: str = "") -> None:
        self.uri, self.name, self.lock, self.registry = uri, name, lock, registry

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow client of the store. The first access opens the store."""
        try:
            with self.lock:
                return _open(self.uri, self.name, self.registry)
        except Exception as error:  # drivers, migrations and JSON parsers raise other exceptions
            raise StoreError(describe_failure(error, self.uri)) from error

    @cached_property
    def experiment_id(self) -> str:
        """Id of the project's MLflow experiment."""
        return str(self.client.get_experiment_by_name(self.name).experiment_id)

    def __enter__(self) -> "Store":
        _ = self.client
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, FAILURES) and not isinstance(error, InputError):
            raise StoreError(describe_failure(error, self.uri)) from error


def connect() -> Store:
    """Return the project's store. A missing database is created when the store is first used."""
    lock = FileLock(project_root() / ".dvc" / "tmp" / "mlflow.lock")
    return Store(store_uri(), project_name(), lock, store_uri("MLFLOW_REGISTRY_URI", ""))


def store_uri(variable: str = "MLFLOW_TRACKING_URI", default: str = DEFAULT) -> str:
    """Return the address in an environment variable, or the default address."""
    return resolve_sqlite(os.environ.get(variable, "").strip() or default, project_root())


def resolve_sqlite(uri: str, root: Path) -> str:
    """Return an address in which a SQLite path is absolute and escaped.

    DVC runs a queued or `--temp` experiment in a copy of the project, which it deletes afterwards.
    Therefore, a relative path starts from the project's root, not from this copy. A path such as
    `sqlite:///$PWD/mlflow.db` need not be escaped. Other addresses are not changed.
    """
    match = re.fullmatch(r"sqlite[+\w]*:///(?!:memory:|file:)([^?]+)(.*)", uri)
    if not match:
        return uri
    path, query = match.groups()
    if not (root / path).parent.is_dir():
        path = unquote(path)
    file = str(root / Path(path).expanduser())
    if make_url(f"sqlite:///{file}").database == file:
        return f"sqlite:///{file}{query}"
    # For a plain `sqlite:` address, MLflow would create parent folders with the escaped names.
    return f"sqlite+pysqlite:///{quote(file)}{query}"


def _open(uri: str, name: str, registry: str) -> MlflowClient:
    """Open the store. Create its database and MLflow experiment if they are missing.

    The caller must hold the lock, because MLflow fails if two processes create the tables of the
    same SQLite file at the same time.
    """
    databases = [each for each in (uri, registry) if each.startswith(DATABASES)]
    for database in databases:
        _check_database(database)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(registry)
    client = MlflowClient()
    # This call also creates the tables of a database, or fails if MLflow cannot use them.
    is_new = client.get_experiment_by_name(name) is None
    if registry:
        client.search_registered_models(max_results=1)
    location = _locate_artifacts(uri) if uri in databases else None
    if uri.startswith("sqlite") and location:
        _move_artifacts(uri, name, location)
    if is_new:
        client.create_experiment(name, location)
    experiment = client.get_experiment_by_name(name)
    tags = {NOTE_TAG: DESCRIPTION, VIEW_TAG: json.dumps({"selectedColumns": COLUMNS})}
    for tag, value in tags.items():
        if tag not in experiment.tags:  # a user may have changed the value of an existing tag
            client.set_experiment_tag(experiment.experiment_id, tag, value)
    return client


def _check_database(uri: str) -> None:
    """Check that a database responds; otherwise, MLflow would retry for two minutes."""
    if uri.startswith("sqlite"):
        file = _database_file(uri)
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_file() and not file.stat().st_size:
            print(f"note: {file} is empty: creating a new MLflow store", file=sys.stderr)
    with create_engine(uri, poolclass=NullPool).begin():
        pass


def _locate_artifacts(uri: str) -> str:
    """Return the location of artifacts: next to a SQLite file, otherwise in the project's root."""
    folder = _database_file(uri).parent if uri.startswith("sqlite") else project_root()
    check_folder(folder)
    # In an experiment, a relative location would be in a copy of the project.
    return (folder / ARTIFACTS).as_uri()


def _database_file(uri: str) -> Path:
    return Path(make_url(uri).database or "").absolute()


def _move_artifacts(uri: str, name: str, location: str) -> None:
    """Update the absolute locations of artifacts if the folder of the store was moved or copied."""
    # The project has several MLflow experiments if its name changed or a user renamed one.
    query = (
        "SELECT DISTINCT artifact_location FROM experiments WHERE name = :name OR experiment_id IN "
        "(SELECT experiment_id FROM experiment_tags WHERE key = :key)"
    )
    with create_engine(uri, poolclass=NullPool).begin() as connection:
        names = {"name": name, "key": VIEW_TAG}
        for former in connection.execute(text(query), names).scalars().all():
            if former == location or not former.endswith(f"/{ARTIFACTS}"):
                continue
            for table, column in LOCATIONS:
                update = f"UPDATE {table} SET {column} = replace({column}, :former, :location)"
                connection.execute(text(update), {"former": former, "location": location})


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
    advice = "check MLFLOW_TRACKING_URI, and that this server or database is running"
    if isinstance(error, OSError) and error.filename:
        advice = "check that this file or folder exists and is writable"
    elif uri.startswith("sqlite"):
        advice = (
            f"check that this file is not locked and is a database of MLflow {mlflow.__version__}"
        )
    return f"MLflow at {hide_password(uri)} failed ({reason[:300]}): {advice}"
