"""The MLflow store: `mlflow.db` in the repository's root with its files in `mlartifacts/`.

`MLFLOW_TRACKING_URI` names another one.
"""

import json
import os
import re
import shlex
import sqlite3
from contextlib import closing
from functools import cached_property
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.store.db import utils as database_utils
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from phototag.base.errors import InputError
from phototag.base.files import project_root

EXPERIMENT = "phototag"
ARTIFACTS = "mlartifacts"
SQLITE = r"sqlite(\+\w+)?:"  # how such addresses begin
WAIT = 20  # seconds for a database that another process has locked; so long does MLflow, too
NOTE_TAG = "mlflow.note.content"
VIEW = "phototag"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
# By default MLflow's table of runs shows no param and no metric.
COLUMNS = (
    "attributes.`Created`",
    "metrics.`best_val_loss`",
    "metrics.`test_f1_micro`",
    "metrics.`test_f1_macro`",
    "params.`lr`",
    "params.`weight_decay`",
    "params.`optimizer`",
)
DESCRIPTION = """Every training of this repository, one run each: `dvc repro` and DVC experiments.

- `val_loss`, `f1_micro`, `f1_macro`: on val at threshold 0.5, epoch by epoch; `best_...` are of the
  epoch whose weights are kept.
- `test_...`: on test, once, at the thresholds chosen on val.
- Artifacts: `evaluate/report.html` (start here), figures and tables, the registered model.
- `phototag.content_key` is a hash of the params, data and code that a training depends on; two runs
  of one key trained the same thing.
"""

# MLflow asks a database that does not answer ten times, for two minutes; training would wait.
database_utils.MAX_RETRY_COUNT = 3

# Where MLflow's tables keep the places of files.
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)

# What MLflow, a database or a server says of a failure -> what that means, and how to mend it.
MEANINGS = (
    (
        "filesystem tracking backend",
        "is a folder, and MLflow keeps runs in folders no more: let MLFLOW_TRACKING_URI name a "
        "database (sqlite:///mlflow.db) or a server",
    ),
    (
        "unsupported URI|Could not parse|Can't load plugin|No module named|invalid literal",
        "is no address that MLflow knows: let MLFLOW_TRACKING_URI name a database "
        "(sqlite:///mlflow.db) or a server (https://...)",
    ),
    (
        "out-of-date database schema|Can't locate revision",
        "was written by another version of MLflow: where that one is newer, install it; where it "
        "is older, copy the database and then run `mlflow db upgrade {uri}`",
    ),
    (
        "file is not a database|image is malformed|no such table|no such column",
        "is damaged: move it away, and `phototag sync` makes a new one with the runs of git's "
        "commits and DVC's experiments",
    ),
    (
        r"database (table )?is locked",
        "is locked by another process: wait until that one has ended",
    ),
    (
        r"disk is full|disk I/O error|\[Errno (28|122)\]",
        "finds no room on the disk: free some space",
    ),
    (
        r"unable to open|readonly database|\[Errno (1|13|20|21|30)\]",
        "cannot be written to: look at the permissions of its file and folder",
    ),
    (
        r"error code 40[13]|error code 407|PERMISSION_DENIED|UNAUTHENTICATED",
        "does not let us in: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
        "MLFLOW_TRACKING_TOKEN",
    ),
    (
        r"valid JSON|error code (30\d|404|405)|ENDPOINT_NOT_FOUND",
        "does not answer as MLflow does: look at the address in MLFLOW_TRACKING_URI",
    ),
    (
        r"error code 5\d\d|too many \d+ error|INTERNAL_ERROR|TEMPORARILY_UNAVAILABLE",
        "answers with an error of its own: look into its log, or its proxy's, and try again",
    ),
)
# The words of a failure that say most.
REASONS = re.compile(
    r"Connection refused|[Tt]imed out|Name or service not known|Temporary failure in name "
    r"resolution|No route to host|Network is unreachable|CERTIFICATE_VERIFY_FAILED|Connection "
    r"reset|Connection aborted|Unable to connect to proxy"
)


class StoreError(InputError):
    """The store cannot be used; the message says why, and how to mend it."""


# What MLflow raises when its store fails; errors of a server come as an OSError, too.
FAILURES = (StoreError, MlflowException, SQLAlchemyError, OSError)


class Store:
    """An MLflow store and the experiment in it, opened when it is first used.

    A `with` block opens it, and whatever fails in the store is told in one sentence, a StoreError.

    Attributes:
        uri: The store's address.
        lock: Held for changes that several processes must make one after the other.
    """

    def __init__(self, uri: str, lock: FileLock) -> None:
        self.uri, self.lock = uri, lock

    @property
    def client(self) -> MlflowClient:
        """Speaks to the store."""
        return self._opened[0]

    @property
    def experiment_id(self) -> str:
        """Of the experiment `phototag`."""
        return self._opened[1]

    @cached_property
    def _opened(self) -> tuple[MlflowClient, str]:
        try:
            Path(self.lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
            with self.lock:
                return _open(self.uri)
        except StoreError:
            raise
        except Exception as error:  # MLflow lets through what drivers, migrations and JSON raise
            raise StoreError(explain(error, self.uri)) from error

    def __enter__(self) -> "Store":
        _ = self._opened
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, FAILURES) and not isinstance(error, InputError):
            raise StoreError(explain(error, self.uri)) from error


def embedded_uri() -> str:
    """Return the address of the store in the repository's root."""
    return sqlite_uri(project_root() / "mlflow.db")


def store_uri() -> str:
    """Return the address of the store: `MLFLOW_TRACKING_URI`, or the embedded one.

    A relative path counts from the repository's root: what lies in the copy of a queued or --temp
    experiment is gone when that one ends.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        return embedded_uri()
    root = project_root()
    if re.match(SQLITE, uri):
        return root_sqlite(uri, root)
    if uri.startswith("file:") and not uri.startswith("file:/"):
        return (root / uri.removeprefix("file:")).as_uri()
    if re.match(r"\w[\w+.-]*:", uri) or uri in ("databricks", "databricks-uc", "uc"):
        return uri
    return str(root / Path(uri).expanduser())


def root_sqlite(uri: str, root: Path) -> str:
    """Return the address of a database, of SQLite with a whole path: a relative one is the root's.

    Args:
        uri: Of any database.
        root: The repository.
    """
    if not re.match(SQLITE, uri):
        return uri
    head, mark, query = uri.partition("?")
    scheme, slashes, path = head.partition(":///")
    if path.startswith("file:") and not path.startswith("file:/"):
        return f"{scheme}{slashes}file:{quote(str(root / path[5:]))}{mark}{query}"
    try:
        database = make_url(uri).database
    except ArgumentError:  # who uses it tells what is wrong with it
        return uri
    if not database or database == ":memory:" or database.startswith(("/", "file:")):
        return uri
    return sqlite_uri(root / database) + mark + query


def sqlite_uri(path: Path) -> str:
    """Write the address of a file, whatever its name holds: `?` and % mean something there."""
    uri = f"sqlite:///{path}"
    if make_url(uri).database == str(path):
        return uri
    # After plain `sqlite:`, MLflow would make the folders of the path as it is written.
    return f"sqlite+pysqlite:///{quote(str(path))}"


def connect() -> Store:
    """Return the store; what is missing of it is made when it is first used."""
    return Store(store_uri(), FileLock(project_root() / ".dvc" / "tmp" / "mlflow.lock"))


def _open(uri: str) -> tuple[MlflowClient, str]:
    """Open the store, and make it and its experiment where they are missing.

    The caller holds the lock: of several processes that migrate one fresh SQLite file at once, all
    fail. The experiment's artifacts get an absolute place, beside a SQLite file or else under the
    root, because a relative one would lie in the copy that DVC deletes after an experiment; a
    server has a place of its own.

    Raises:
        StoreError: The experiment was deleted.
    """
    place = None
    if uri.startswith("sqlite"):
        database = Path(make_url(uri).database or "").absolute()
        place = (database.parent / ARTIFACTS).as_uri()
        if database.is_file():
            _move_artifacts(database, place)
    elif uri.startswith(("postgresql", "mysql", "mssql")):
        place = (project_root() / ARTIFACTS).as_uri()
    mlflow.set_tracking_uri(uri)
    client = MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        try:
            client.create_experiment(EXPERIMENT, place)
        except MlflowException:
            # On a shared server, another machine may have made it in between.
            if client.get_experiment_by_name(EXPERIMENT) is None:
                raise
        experiment = client.get_experiment_by_name(EXPERIMENT)
    number = experiment.experiment_id
    if experiment.lifecycle_stage != "active":
        command = f"mlflow experiments restore --experiment-id {number}"
        raise StoreError(
            f"MLflow's experiment {EXPERIMENT!r} was deleted; to bring it back: "
            f"MLFLOW_TRACKING_URI={shlex.quote(shown(uri))} {command}"
        )
    tags = {NOTE_TAG: DESCRIPTION, VIEW_TAG: json.dumps({"selectedColumns": COLUMNS})}
    for name, value in tags.items():
        if name not in experiment.tags:  # what somebody wrote there stays
            client.set_experiment_tag(number, name, value)
    return client, number


def _move_artifacts(database: Path, place: str) -> None:
    """Let the store follow its folder: a folder that was renamed or copied has its files in it.

    MLflow's tables hold absolute places. Where the former one is still there and there is none
    beside the database, the files did not come along, and all stays as it is.
    """
    with closing(sqlite3.connect(database, timeout=WAIT)) as connection, connection:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        if "experiments" not in tables:
            return
        found = connection.execute(
            "SELECT artifact_location FROM experiments WHERE name = ?", [EXPERIMENT]
        ).fetchone()
        former = found[0] if found else ""
        if former == place or not former.endswith(f"/{ARTIFACTS}"):
            return
        if _local_path(former).exists() and not _local_path(place).exists():
            return
        for table, column in PLACES:
            if table in tables:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    [place, len(former) + 1, former, len(former) + 1, f"{former}/"],
                )


def _local_path(uri: str) -> Path:
    return Path(local_file_uri_to_path(uri))


def shown(uri: str) -> str:
    """Return an address without its password."""
    # Up to the last @, because a password may hold one; what begins with three / is a file.
    return re.sub(r"(?<!/)//(?!/)\S*@", "//***@", uri)


def explain(error: BaseException, uri: str) -> str:
    """Tell in one sentence what failed in the store, and how to mend it.

    Args:
        error: What was raised.
        uri: The store's address.
    """
    if isinstance(error, InputError):
        return str(error)
    text = f"{type(error).__name__}: {error}"
    for pattern, meaning in MEANINGS:
        if re.search(pattern, text):
            return f"MLflow's store {shown(uri)} {meaning.format(uri=shown(uri))}"
    known = REASONS.search(text)
    if known:
        return (
            f"MLflow cannot be reached at {shown(uri)} ({known[0]}): start its server, or correct "
            "MLFLOW_TRACKING_URI"
        )
    reason = shown(" ".join(text.split()))
    return f"MLflow's store {shown(uri)} failed ({reason[:300]}): look into its log"


def training_view(base: str, experiment_id: str) -> str:
    """Return the address that opens the experiment's runs, with losses, F1 and lr as columns.

    MLflow 3 opens a bare experiment address in its GenAI view, which does not show them.
    """
    options = f"workflowType=machine_learning&viewStateShareKey={VIEW}"
    return f"{base}/#/experiments/{experiment_id}/runs?{options}"
