"""Address and location of the store, and the message of a failure."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from phototag.base.errors import InputError
from phototag.schema.checks import check_params
from phototag.tracking.evaluations import record_evaluation
from phototag.tracking.runs import Training, create_run, log_folder
from phototag.tracking.store import (
    StoreError,
    connect,
    describe_failure,
    hide_password,
    store_uri,
)
from phototag.tracking.training import record_training
from tests.conftest import SHIPPED_PARAMS
from tests.forks import fork

TRAINING = Training(
    "key", {"lr": 1}, splits={"train": {"photos": 3, "fingerprint": "f"}}, exp_name=""
)
EPOCHS = [{"epoch": epoch, "val_loss": 1 / epoch} for epoch in (1, 2, 3)]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Path:
    """Root of a project; the working directory is the copy of an experiment."""
    copy = tmp_path / "root/.dvc/tmp/exps/copy"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("DVC_EXP_NAME", "")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    shutil.copy(empty_database, tmp_path / "root")
    return tmp_path / "root"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "sqlite:///{root}/mlflow.db"),
        ("sqlite:///mlflow.db", "sqlite:///{root}/mlflow.db"),
        ("sqlite:///./a/b.db", "sqlite:///{root}/a/b.db"),
        ("sqlite:///../b.db?timeout=5", "sqlite:///{root}/../b.db?timeout=5"),
        ("sqlite+pysqlite:///b.db", "sqlite:///{root}/b.db"),
        ("sqlite:////srv/b.db", "sqlite:////srv/b.db"),
        ("sqlite:////srv/b.db?cache=a/b", "sqlite:////srv/b.db?cache=a/b"),
        ("sqlite:///~/b.db", "sqlite:////home/me/b.db"),
        ("sqlite:///{root}/a%20b/b.db?timeout=5", "{escaped}/a%2520b/b.db?timeout=5"),
        ("sqlite:///{root}/a%2520b/b.db", "{escaped}/a%2520b/b.db"),
        ("sqlite:///a%20b/b.db", "{escaped}/a%2520b/b.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("postgresql+psycopg://me:word@host/name", "postgresql+psycopg://me:word@host/name"),
        ("databricks", "databricks"),
    ],
)
def test_relative_sqlite_addresses_start_at_the_root(
    root: Path, monkeypatch: pytest.MonkeyPatch, given: str, expected: str
) -> None:
    """An existing folder, `a%20b`, has characters that SQLAlchemy decodes."""
    monkeypatch.setenv("HOME", "/home/me")
    (root / "a%20b").mkdir()
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv(variable, given.format(root=root))
        found = expected.format(root=root, escaped=f"sqlite+pysqlite:///{root}")
        assert store_uri(variable) == found
        monkeypatch.setenv(variable, found)  # as `mlflow.set_tracking_uri` does
        assert store_uri(variable) == found


def test_relative_database_and_artifacts_are_not_in_the_copy(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other/runs.db")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "sqlite:///other/models.db")
    (Path.cwd() / "evaluate").mkdir()
    (Path.cwd() / "evaluate/report.html").write_text("page")
    store = connect()
    run_id = create_run(store, Training("key"))
    log_folder(store, run_id, Path.cwd() / "evaluate")
    store.client.create_registered_model("phototag")
    shutil.rmtree(root / ".dvc/tmp/exps")
    assert (root / "other/runs.db").is_file()
    assert (root / "other/models.db").is_file()
    report = root / f"other/mlartifacts/{run_id}/artifacts/evaluate/report.html"
    assert report.read_text() == "page"


@pytest.mark.parametrize(
    "name", ["what?", "a#b", "50% off", "me@home", 'mein Büro\'s "x" #1', "x:y"]
)
def test_store_is_in_the_project_folder_with_special_characters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path, name: str
) -> None:
    root = tmp_path / name
    root.mkdir()
    shutil.copy(empty_database, root)
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    (root / "evaluate").mkdir()
    (root / "evaluate/report.html").write_text("page")
    store = connect()
    run_id = create_run(store, Training("key"))
    log_folder(store, run_id, root / "evaluate")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (root / "mlflow.db").stat().st_mtime_ns > empty_database.stat().st_mtime_ns
    assert (root / f"mlartifacts/{run_id}/artifacts/evaluate/report.html").is_file()
    artifact = f"runs:/{run_id}/evaluate/report.html"
    assert mlflow.artifacts.load_text(artifact) == "page"


def test_folder_from_which_mlflow_cannot_load_models_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "50%20"
    root.mkdir()
    shutil.copy(SHIPPED_PARAMS, root / "params.yaml")
    monkeypatch.chdir(root)
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    for check in (check_params, lambda: connect().client):
        with pytest.raises(InputError, match="contains %20, and MLflow cannot load models"):
            check()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host")
    check_params()


@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_artifacts_are_found_after_the_project_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path, how: str
) -> None:
    before, after = tmp_path / "100% mine", tmp_path / "b"
    (before / "evaluate").mkdir(parents=True)
    shutil.copy(empty_database, before)
    (before / "evaluate/report.html").write_text("page")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("DVC_ROOT", str(before))
    store = connect()
    run_id = create_run(store, Training("key"))
    log_folder(store, run_id, before / "evaluate")
    artifact = store.client.get_run(run_id).info.artifact_uri
    store.client.create_registered_model("phototag")
    store.client.create_model_version("phototag", artifact)
    # `connect` creates an experiment of the former name again, so the store has two experiments.
    store.client.rename_experiment(store.experiment_id, "my photos")
    if how == "renamed":
        before.rename(after)
    else:
        shutil.copytree(before, after)
    monkeypatch.setenv("DVC_ROOT", str(after))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "")
    moved = connect()
    place = f"{after.as_uri()}/mlartifacts"
    assert moved.client.get_run(run_id).info.artifact_uri == f"{place}/{run_id}/artifacts"
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/evaluate/report.html") == "page"
    source = moved.client.get_model_version("phototag", "1").source
    assert source == f"{place}/{run_id}/artifacts"
    later = create_run(moved, Training("other"))
    assert moved.client.get_run(later).info.artifact_uri == f"{place}/{later}/artifacts"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:9", "at http://127.0.0.1:9 failed ([Errno 111] Connection refused)"),
        ("http://no-such-host.invalid", "at http://no-such-host.invalid failed"),
        ("postgresql://me:word@127.0.0.1:9/x", "at postgresql://***@127.0.0.1:9/x failed"),
        ("./mlruns", "sqlite:///mlflow.db"),
        ("nonsense://x", "sqlite"),
    ],
)
def test_unusable_address_gives_one_warning_and_loses_no_epoch(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    address: str,
    reason: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    history = record_training(connect(), TRAINING, EPOCHS)
    assert history == EPOCHS
    printed = capfd.readouterr().err
    assert printed.count("warning") == 1
    assert reason in printed
    assert "training continues" in printed
    record_evaluation(connect(), TRAINING, pd.DataFrame(history), {"loss": 0.1}, root)
    printed = capfd.readouterr().err
    assert reason in printed
    assert str(root) in printed
    with pytest.raises(StoreError, match="MLflow"), connect():
        pass


def test_all_epochs_are_logged_when_the_store_becomes_available(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Until the second epoch a folder has the name of the database."""
    (root / "mlflow.db").rename(root / "kept.db")
    (root / "mlflow.db").mkdir()

    def train() -> Iterator[dict[str, float]]:
        yield EPOCHS[0]
        (root / "mlflow.db").rmdir()
        (root / "kept.db").rename(root / "mlflow.db")
        yield from EPOCHS[1:]

    record_training(connect(), TRAINING, train())
    assert capsys.readouterr().err.count("warning") == 1
    store = connect()
    (run,) = store.client.search_runs([store.experiment_id])
    logged = store.client.get_metric_history(run.info.run_id, "val_loss")
    assert [metric.step for metric in logged] == [1, 2, 3]
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "1"}
    assert run.data.metrics["best_val_loss"] == 1 / 3
    assert run.inputs.dataset_inputs


def damage(root: Path, how: str) -> None:
    database = root / "mlflow.db"
    if how == "deleted":
        store = connect()
        store.client.delete_experiment(store.experiment_id)
    elif how == "damaged":
        database.write_bytes(b"no database" * 1000)
    elif how == "no folder":
        (root / "mlartifacts").touch()
    elif how == "unwritable":
        database.unlink()
        database.mkdir()
    elif how in ("older", "newer"):
        with sqlite3.connect(database) as connection:
            revision = {"older": "bd07f7e963c5", "newer": "ffffffffffff"}[how]
            connection.execute("UPDATE alembic_version SET version_num = ?", [revision])


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("deleted", "deleted"),
        ("damaged", "file is not a database): check that this file is not locked and is a"),
        ("no folder", "check that this file or folder exists and is writable"),
        ("unwritable", "unable to open database file"),
        ("older", "mlflow db upgrade"),
        ("newer", "ffffffffffff"),
    ],
)
def test_damaged_store_gives_a_warning_of_one_sentence(
    root: Path, capfd: pytest.CaptureFixture[str], how: str, reason: str
) -> None:
    damage(root, how)
    capfd.readouterr()
    assert record_training(connect(), TRAINING, EPOCHS) == EPOCHS
    printed = capfd.readouterr().err
    assert reason in printed
    assert printed.count("\n") == 1
    record_evaluation(connect(), TRAINING, pd.DataFrame(EPOCHS), {"loss": 0.1}, root)
    printed = capfd.readouterr().err
    assert reason in printed
    assert printed.count("\n") == 1


def test_empty_database_is_replaced_with_a_note(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "mlflow.db").write_bytes(b"")
    assert connect().experiment_id
    assert f"note: {root}/mlflow.db is empty" in capsys.readouterr().err
    assert connect().experiment_id
    assert not capsys.readouterr().err


def test_training_continues_while_the_database_is_locked(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db?timeout=0.1")
    _ = connect().client
    holder = sqlite3.connect(root / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        assert record_training(connect(), TRAINING, EPOCHS) == EPOCHS
    finally:
        holder.close()
    printed = capfd.readouterr().err
    assert "database is locked" in printed
    assert printed.count("\n") == 1


def test_failure_is_described_by_its_innermost_connection_error() -> None:
    try:
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError as error:
            raise RuntimeError("a long\nmessage") from error
    except RuntimeError as error:
        message = describe_failure(error, "http://host")
    assert message.startswith("MLflow at http://host failed ([Errno 111] Connection refused): ")
    assert "failed (first): " in describe_failure(RuntimeError("first\nsecond"), "http://host")
    assert "failed (KeyError): " in describe_failure(KeyError(), "http://host")


def test_passwords_are_hidden() -> None:
    assert hide_password("postgresql://me:word@host/name") == "postgresql://***@host/name"
    assert hide_password("postgresql://me:w/o@rd@host/name") == "postgresql://***@host/name"
    assert hide_password("https://me:word@host") == "https://***@host"
    path = "sqlite:////home/me@work/mlflow.db"
    assert hide_password(path) == path
    error = RuntimeError("no https://me:word@host")
    assert "word" not in describe_failure(error, "https://me:word@host")


def test_other_errors_pass_through_unchanged(root: Path) -> None:
    with pytest.raises(InputError, match=r"^no such version$"), connect():
        raise InputError("no such version")
    with pytest.raises(ZeroDivisionError), connect():
        _ = 1 / 0


def write_experiment(root: Path, name: str) -> None:
    os.environ |= {"DVC_ROOT": str(root), "MLFLOW_TRACKING_URI": ""}
    (root / name).write_text(connect().experiment_id)


@pytest.mark.slow
def test_four_processes_can_open_a_new_store_at_once(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    started = [fork(write_experiment, tmp_path, name) for name in names]
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0, 0, 0]
    assert len({(tmp_path / name).read_text() for name in names}) == 1
