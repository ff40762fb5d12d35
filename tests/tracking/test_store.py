"""The store's address, its place, and what it says when it fails."""

import http.server
import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from phototag.base.errors import InputError
from phototag.base.files import project_root
from phototag.tracking.records import DataInput, log_folder
from phototag.tracking.runs import create_run, record_evaluation, record_training
from phototag.tracking.store import (
    StoreError,
    connect,
    embedded_uri,
    explain,
    shown,
    store_uri,
)

DATA = DataInput("manifest.csv", "f" * 16, {"train": {"photos": 3, "sea": 1}})
EPOCHS = [{"epoch": epoch, "val_loss": 1 / epoch} for epoch in (1, 2, 3)]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Path:
    """A project's root, while the working directory is an experiment's copy."""
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
    ("given", "meant"),
    [
        ("", "sqlite:///{root}/mlflow.db"),
        ("sqlite:///mlflow.db", "sqlite:///{root}/mlflow.db"),
        ("sqlite:///./a/b.db", "sqlite:///{root}/a/b.db"),
        ("sqlite:///../b.db?timeout=5", "sqlite:///{root}/../b.db?timeout=5"),
        ("sqlite+pysqlite:///b.db", "sqlite:///{root}/b.db"),
        ("sqlite:///file:b.db?uri=true", "sqlite:///file:{root}/b.db?uri=true"),
        ("sqlite:////srv/b.db", "sqlite:////srv/b.db"),
        ("sqlite://", "sqlite://"),
        ("./mlruns", "{root}/mlruns"),
        ("mlruns", "{root}/mlruns"),
        ("/srv/mlruns", "/srv/mlruns"),
        ("file:./mlruns", "file://{root}/mlruns"),
        ("file:///srv/mlruns", "file:///srv/mlruns"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("postgresql+psycopg://me:word@host/name", "postgresql+psycopg://me:word@host/name"),
        ("databricks", "databricks"),
    ],
)
def test_relative_addresses_count_from_the_root(
    root: Path, monkeypatch: pytest.MonkeyPatch, given: str, meant: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert store_uri() == meant.format(root=root)


def test_a_relative_database_and_its_files_outlive_the_copy(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other/runs.db")
    (Path.cwd() / "evaluate").mkdir()
    (Path.cwd() / "evaluate/report.html").write_text("page")
    store = connect()
    run_id = create_run(store, "key", {}, {}, "")
    log_folder(store, run_id, Path.cwd() / "evaluate")
    shutil.rmtree(root / ".dvc/tmp/exps")
    assert (root / "other/runs.db").is_file()
    report = root / f"other/mlartifacts/{run_id}/artifacts/evaluate/report.html"
    assert report.read_text() == "page"


@pytest.mark.parametrize(
    "name", ["what?", "a#b", "50% off", "50%20", "me@home", "mein Büro", "x:y"]
)
def test_the_store_lies_in_the_project_whatever_its_name(
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
    run_id = create_run(store, "key", {}, {}, "")
    log_folder(store, run_id, root / "evaluate")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (root / "mlflow.db").stat().st_mtime_ns > empty_database.stat().st_mtime_ns
    assert (root / f"mlartifacts/{run_id}/artifacts/evaluate/report.html").is_file()
    artifact = f"runs:/{run_id}/evaluate/report.html"
    assert mlflow.artifacts.load_text(artifact) == "page"


@pytest.mark.parametrize("how", ["renamed", "copied", "database alone"])
def test_the_store_moves_with_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path, how: str
) -> None:
    before, after = tmp_path / "100% mine", tmp_path / "b"
    (before / "evaluate").mkdir(parents=True)
    shutil.copy(empty_database, before)
    (before / "evaluate/report.html").write_text("page")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("DVC_ROOT", str(before))
    store = connect()
    run_id = create_run(store, "key", {}, {}, "")
    log_folder(store, run_id, before / "evaluate")
    if how == "renamed":
        before.rename(after)
    elif how == "copied":
        shutil.copytree(before, after)
    else:
        after.mkdir()
        shutil.copy(before / "mlflow.db", after)
    monkeypatch.setenv("DVC_ROOT", str(after))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    moved = connect()
    home = before if how == "database alone" else after
    place = f"{home.as_uri()}/mlartifacts"
    assert moved.client.get_run(run_id).info.artifact_uri == f"{place}/{run_id}/artifacts"
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/evaluate/report.html") == "page"
    later = create_run(moved, "other", {}, {}, "")
    assert moved.client.get_run(later).info.artifact_uri == f"{place}/{later}/artifacts"


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers every request alike."""

    status, body, kind = 500, b"", "text/html"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answer() -> Iterator[tuple[type[Answer], str]]:
    """What a server answers, to be set, and its address."""
    handler = type("Own", (Answer,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield handler, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


PAGE = b"<html>Sign in</html>"
DENIED = json.dumps({"error_code": "PERMISSION_DENIED", "message": "no"}).encode()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, PAGE, "an error of its own"),
        (502, PAGE, "an error of its own"),
        (401, PAGE, "MLFLOW_TRACKING_USERNAME"),
        (403, DENIED, "MLFLOW_TRACKING_USERNAME"),
        (407, PAGE, "MLFLOW_TRACKING_USERNAME"),
        (404, PAGE, "does not answer as MLflow does"),
        (200, PAGE, "does not answer as MLflow does"),
    ],
)
def test_servers_that_are_no_help(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: tuple[type[Answer], str],
    capsys: pytest.CaptureFixture[str],
    status: int,
    body: bytes,
    said: str,
) -> None:
    handler, address = answer
    monkeypatch.setattr(handler, "status", status)
    monkeypatch.setattr(handler, "body", body)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{address}/mlflow")
    assert record_training(connect(), "key", {}, EPOCHS, DATA) == EPOCHS
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith(f"warning: MLflow's store {address}/mlflow ")
    assert said in told
    assert "phototag sync" in told


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:9", "MLflow cannot be reached at http://127.0.0.1:"),
        ("http://no-such-host.invalid", "MLflow cannot be reached at http://no-such-host"),
        ("postgresql://me:word@127.0.0.1:9/x", "MLflow cannot be reached at postgresql://***@"),
        ("./mlruns", "sqlite:///mlflow.db"),
        ("mlruns", "sqlite:///mlflow.db"),
        ("nonsense://x", "sqlite:///mlflow.db"),
    ],
)
def test_without_a_store_nothing_is_lost(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    address: str,
    said: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    history = record_training(connect(), "key", {"lr": 1}, EPOCHS, DATA)
    assert history == EPOCHS
    told = capfd.readouterr().err
    assert told.count("warning") == 1
    assert said in told
    assert "training goes on" in told
    record_evaluation(connect(), "key", {}, pd.DataFrame(history), {"loss": 0.1}, root)
    told = capfd.readouterr().err
    assert said in told
    assert str(root) in told
    with pytest.raises(StoreError, match="MLflow"), connect():
        pass


def test_a_server_that_comes_late_gets_all(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder stands where the database belongs, until the second epoch."""
    (root / "mlflow.db").rename(root / "kept.db")
    (root / "mlflow.db").mkdir()

    def train() -> Iterator[dict[str, float]]:
        yield EPOCHS[0]
        (root / "mlflow.db").rmdir()
        (root / "kept.db").rename(root / "mlflow.db")
        yield from EPOCHS[1:]

    record_training(connect(), "key", {"lr": 1}, train(), DATA)
    assert capsys.readouterr().err.count("warning") == 1
    store = connect()
    (run,) = store.client.search_runs([store.experiment_id])
    logged = store.client.get_metric_history(run.info.run_id, "val_loss")
    assert [metric.step for metric in logged] == [1, 2, 3]
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "1"}
    assert run.data.metrics["best_val_loss"] == 1 / 3
    assert run.inputs.dataset_inputs


def spoil(root: Path, how: str) -> None:
    database = root / "mlflow.db"
    if how == "deleted":
        store = connect()
        store.client.delete_experiment(store.experiment_id)
    elif how == "damaged":
        database.write_bytes(b"no database" * 1000)
    elif how == "unwritable":
        database.unlink()
        database.mkdir()
    elif how in ("older", "newer"):
        with sqlite3.connect(database) as connection:
            revision = {"older": "bd07f7e963c5", "newer": "ffffffffffff"}[how]
            connection.execute("UPDATE alembic_version SET version_num = ?", [revision])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("deleted", "mlflow experiments restore --experiment-id 1"),
        ("damaged", "move it away"),
        ("unwritable", "permissions"),
        ("older", "mlflow db upgrade sqlite:///"),
        ("newer", "where that one is newer, install it"),
    ],
)
def test_a_spoilt_store_is_told_in_one_sentence(
    root: Path, capfd: pytest.CaptureFixture[str], how: str, said: str
) -> None:
    spoil(root, how)
    capfd.readouterr()
    assert record_training(connect(), "key", {}, EPOCHS, DATA) == EPOCHS
    told = capfd.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    record_evaluation(connect(), "key", {}, pd.DataFrame(EPOCHS), {"loss": 0.1}, root)
    told = capfd.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_the_mend_of_a_deleted_experiment_works_when_pasted(root: Path) -> None:
    spoil(root, "deleted")
    with pytest.raises(StoreError) as told:
        _ = connect().client
    number = str(told.value).rpartition(" ")[2]
    assert embedded_uri() in str(told.value)
    mlflow.MlflowClient(embedded_uri()).restore_experiment(number)
    assert connect().experiment_id == number


def test_a_locked_database_keeps_nothing_up(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db?timeout=0.1")
    _ = connect().client
    holder = sqlite3.connect(root / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("phototag.tracking.store.WAIT", 0.1)
    try:
        assert record_training(connect(), "key", {}, EPOCHS, DATA) == EPOCHS
    finally:
        holder.close()
    told = capfd.readouterr().err
    assert "is locked by another process" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (sqlite3.OperationalError("database or disk is full"), "free some space"),
        (OSError(28, "No space left on device"), "free some space"),
        (PermissionError(13, "Permission denied"), "permissions"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "permissions"),
        (sqlite3.DatabaseError("database disk image is malformed"), "move it away"),
        (RuntimeError("never\nseen"), "failed (RuntimeError: never seen)"),
    ],
)
def test_failures_are_told_with_their_mend(error: Exception, said: str) -> None:
    told = explain(error, "sqlite:////srv/mlflow.db")
    assert told.startswith("MLflow's store sqlite:////srv/mlflow.db ")
    assert said in told
    assert "\n" not in told


def test_passwords_are_not_shown() -> None:
    assert shown("postgresql://me:word@host/name") == "postgresql://***@host/name"
    assert shown("postgresql://me:w/o@rd@host/name") == "postgresql://***@host/name"
    assert shown("https://me:word@host") == "https://***@host"
    assert shown("sqlite:////home/me@work/mlflow.db") == "sqlite:////home/me@work/mlflow.db"
    error = RuntimeError("no https://me:word@host")
    assert "word" not in explain(error, "https://me:word@host")


def test_a_mistake_of_ones_own_is_told_as_it_is(root: Path) -> None:
    with pytest.raises(InputError, match=r"^no such version$"), connect():
        raise InputError("no such version")
    with pytest.raises(ZeroDivisionError), connect():
        _ = 1 / 0


def test_the_root_is_the_main_checkout(root: Path) -> None:
    assert project_root() == root
    assert Path.cwd() != root
    assert os.environ["DVC_ROOT"] == str(root)
