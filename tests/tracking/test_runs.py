import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import psutil
import pytest

from phototag.tracking.provenance import name_machine
from phototag.tracking.records import DataInput, log_epoch, log_folder, log_scores
from phototag.tracking.runs import (
    create_run,
    find_or_rebuild_run,
    find_run,
    hold_signals,
    record_training,
    training_run,
)
from phototag.tracking.store import Store, connect
from tests.forks import fork
from tests.servers import WITHOUT_JOBS, Gate, free_port, run_server

DATA = DataInput("manifest.csv", "f" * 16, {"train": {"photos": 3, "sea": 1}})
HISTORY = pd.DataFrame({"epoch": [1, 2], "val_loss": [0.3, 0.2], "lr": [1e-3, 1e-3]})


def test_run_carries_params_metrics_and_tags(store: Store) -> None:
    params = {"lr": 0.1, "model": {"conv": [{"out": 20}]}}
    with training_run(store, "key", params, {"data_fingerprint": "f"}) as run_id:
        for record in HISTORY.to_dict("records"):
            log_epoch(store, run_id, record, 1)
    run = store.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.1", "model.conv.0.out": "20"}
    assert run.data.tags["data_fingerprint"] == "f"
    history = store.client.get_metric_history(run_id, "val_loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.3), (2, 0.2)]


def test_the_best_figures_are_of_the_epoch_that_was_kept(store: Store) -> None:
    epochs = [
        {"epoch": 1, "val_loss": 0.3, "mAP": 0.5, "kept": 1},
        {"epoch": 2, "val_loss": 0.4, "mAP": 0.6, "kept": 2},
    ]
    record_training(store, "key", {}, epochs, DATA)
    (run,) = store.client.search_runs([store.experiment_id])
    best = {name: run.data.metrics[f"best_{name}"] for name in ("epoch", "val_loss", "mAP")}
    assert best == {"epoch": 2, "val_loss": 0.4, "mAP": 0.6}


def test_recorded_training_tells_the_whole_story(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t"]
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    epochs = [
        {"epoch": 1, "val_loss": 0.3, "f1_micro": 0.1, "f1_macro": 0.2},
        {"epoch": 2, "val_loss": 0.2, "f1_micro": 0.4, "f1_macro": 0.3},
        {"epoch": 3, "val_loss": 0.5, "f1_micro": 0.5, "f1_macro": 0.6},
    ]

    def train() -> Iterator[dict[str, float]]:
        yield from epochs[:2]
        deadline = time.monotonic() + 60
        (run_id,) = running(store)
        while time.monotonic() < deadline:  # as long as a real epoch, in which samples are taken
            if "system/cpu_utilization_percentage" in store.client.get_run(run_id).data.metrics:
                break
        yield epochs[2]

    record_training(store, "key", {"lr": 0.1}, train(), DATA)
    (run,) = store.client.search_runs([store.experiment_id])
    best = {name: run.data.metrics[f"best_{name}"] for name in epochs[1]}
    assert best == epochs[1]
    assert "system/cpu_utilization_percentage" in run.data.metrics
    assert len(run.data.tags["mlflow.source.git.commit"]) == 40
    assert run.data.tags["phototag.git_dirty"] in ("true", "false")
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == "f" * 16
    assert json.loads(data.dataset.profile) == {"photos": 3, "sea": 1}
    assert data.tags[0].value == "train"
    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/environment.txt")
    assert "torch==" in text
    assert text.startswith("# Python 3")
    note = store.client.get_experiment(store.experiment_id).tags["mlflow.note.content"]
    assert "content_key" in note


def leave_a_run(root: Path) -> None:
    os.environ |= {"DVC_ROOT": str(root), "MLFLOW_TRACKING_URI": ""}
    with training_run(connect(), "old", {}, {}):
        os._exit(9)


def test_runs_of_dead_processes_are_closed_at_the_next_start(store: Store, tmp_path: Path) -> None:
    fork(leave_a_run, tmp_path).join()
    other = create_run(store, "elsewhere", {}, {"phototag.process": "host:1:1"}, "")
    (dead,) = [run for run in running(store) if run != other]
    with training_run(store, "new", {}, {}) as own:
        assert set(running(store)) == {other, own}
    run = store.client.get_run(dead)
    assert run.info.status == "KILLED"
    assert run.data.tags["phototag.error"] == "its process was killed"


def running(store: Store) -> list[str]:
    found = store.client.search_runs([store.experiment_id], "attributes.status = 'RUNNING'")
    return [run.info.run_id for run in found]


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(1), "KILLED")],
)
def test_a_broken_run_says_so(store: Store, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), training_run(store, "key", {}, {}) as run_id:
        raise error
    run = store.client.get_run(run_id)
    assert run.info.status == status
    assert run.data.tags.get("phototag.error") == ("ValueError: no" if status == "FAILED" else None)
    with training_run(store, "key", {}, {}) as again:
        assert again == run_id
        assert store.client.get_run(run_id).info.status == "RUNNING"
    assert store.client.get_run(run_id).info.status == "FINISHED"


def test_a_killed_experiment_goes_on_under_its_new_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "killed-ant")
    with pytest.raises(SystemExit), training_run(store, "key", {}, {}) as run_id:
        raise SystemExit
    monkeypatch.setenv("DVC_EXP_NAME", "bold-bee")
    with training_run(store, "key", {}, {}) as fresh:  # there was no state to go on from
        assert fresh != run_id
    monkeypatch.setenv("DVC_EXP_NAME", "calm-cat")
    with training_run(store, "key", {}, {}, resumed=True) as again:
        assert again == run_id
    run = store.client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("calm-cat", "FINISHED")
    assert find_run(store, "key", "calm-cat").info.run_id == run_id  # type: ignore[union-attr]
    assert find_run(store, "key", "killed-ant") is None


OTHERS = ["other-machine:1:1", "", "live"]


@pytest.fixture
def process(request: pytest.FixtureRequest) -> Iterator[str]:
    """A process that may be at work: on another machine, nobody knows which, or here."""
    if request.param != "live":
        yield request.param
        return
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as live:
        yield f"{name_machine()}:{live.pid}:{psutil.Process(live.pid).create_time():.0f}"


@pytest.mark.parametrize("process", OTHERS, indirect=True)
@pytest.mark.parametrize("experiment", ["first", "second"])
def test_a_run_at_work_is_not_taken_over(
    store: Store, monkeypatch: pytest.MonkeyPatch, process: str, experiment: str
) -> None:
    """The other one trains the same: an experiment of other thresholds, or another machine."""
    other = create_run(store, "key", {}, {"phototag.process": process}, "first")
    monkeypatch.setenv("DVC_EXP_NAME", experiment)
    for resumed in (True, False):
        with training_run(store, "key", {}, {}, resumed) as own:
            assert own != other
    assert find_or_rebuild_run(store, "key", {}, HISTORY) == own
    run = store.client.get_run(other)
    assert (run.info.status, run.info.run_name) == ("RUNNING", "first")
    assert run.data.metrics == {}


def test_evaluate_finds_the_run_of_its_own_machine(store: Store) -> None:
    own = find_or_rebuild_run(store, "key", {}, HISTORY, "")
    other = create_run(store, "key", {}, {"phototag.process": "other-machine:1:1"}, "")
    store.client.set_terminated(other)
    assert find_or_rebuild_run(store, "key", {}, HISTORY, "") == own


def test_a_run_names_the_commit_of_the_folder_it_runs_in(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queued experiments run in a copy, while the main checkout goes on."""
    commits = []
    for folder in (tmp_path, tmp_path / "copy"):
        folder.mkdir(exist_ok=True)
        git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t"]
        for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", str(folder)]):
            subprocess.run([*git, *arguments], check=True)
        commits.append(subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip())
    (tmp_path / "file").touch()
    subprocess.run(["git", "-C", str(tmp_path), "add", "file"], check=True)
    monkeypatch.chdir(tmp_path / "copy")
    tags = store.client.get_run(create_run(store, "key", {}, {}, "")).data.tags
    assert tags["mlflow.source.git.commit"] == commits[1] != commits[0]
    assert tags["phototag.git_dirty"] == "false"


def test_sigterm_ends_the_run_as_killed(store: Store) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit), training_run(store, "key", {}, {}) as run_id:
        os.kill(os.getpid(), signal.SIGTERM)
    assert store.client.get_run(run_id).info.status == "KILLED"
    assert signal.getsignal(signal.SIGTERM) is before


def test_rebuild_happens_once_for_each_experiment(store: Store) -> None:
    first = find_or_rebuild_run(store, "key", {"lr": 1}, HISTORY, "")
    assert find_or_rebuild_run(store, "key", {"lr": 1}, HISTORY, "") == first
    named = find_or_rebuild_run(store, "key", {"lr": 1}, HISTORY, "bold-ant")
    assert named != first
    run = store.client.get_run(named)
    assert run.info.run_name == "bold-ant"
    assert run.data.metrics["val_loss"] == 0.2
    history = store.client.get_metric_history(named, "val_loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.3), (2, 0.2)]


def test_artifacts_lie_under_the_root_even_from_a_temporary_copy(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    (copy / "evaluate").mkdir(parents=True)
    (copy / "evaluate" / "report.html").write_text("page")
    monkeypatch.chdir(copy)
    run_id = create_run(connect(), "key", {}, {}, "")
    log_folder(store, run_id, copy / "evaluate")
    kept = tmp_path / "mlartifacts" / run_id / "artifacts" / "evaluate" / "report.html"
    assert kept.read_text() == "page"


def test_scores_of_a_later_evaluation_replace_those_before(store: Store) -> None:
    run_id = create_run(store, "key", {}, {}, "")
    for value in (0.3, 0.1, 0.1):
        log_scores(store, run_id, {"loss": value, "mAP": 0.5})
        assert store.client.get_run(run_id).data.metrics["test_loss"] == value
    assert len(store.client.get_metric_history(run_id, "test_loss")) == 2
    assert len(store.client.get_metric_history(run_id, "test_mAP")) == 1


def write_experiment(root: Path, name: str) -> None:
    os.environ |= {"DVC_ROOT": str(root), "MLFLOW_TRACKING_URI": ""}
    (root / name).write_text(connect().experiment_id)


@pytest.mark.slow
def test_four_processes_may_open_a_fresh_store_at_once(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    started = [fork(write_experiment, tmp_path, name) for name in names]
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0, 0, 0, 0]
    assert len({(tmp_path / name).read_text() for name in names}) == 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real MLflow server on a store of its own."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "served")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    environment |= WITHOUT_JOBS
    with run_server(command, f"http://127.0.0.1:{port}/health", folder, environment):
        yield port


@pytest.mark.slow
def test_a_real_server_over_http(
    tmp_path: Path, server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server}")
    store = connect()
    run_id = find_or_rebuild_run(store, "over-http", {"lr": 1}, HISTORY, "")
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "report.html").write_text("page")
    log_scores(store, run_id, {"loss": 0.1})
    log_folder(store, run_id, tmp_path / "evaluate")
    assert store.client.get_run(run_id).data.metrics["test_loss"] == 0.1
    shown = mlflow.artifacts.load_text(f"runs:/{run_id}/evaluate/report.html")
    assert shown == "page"
    assert not (tmp_path / "mlartifacts").exists()


@pytest.mark.slow
@pytest.mark.parametrize("returns", [True, False])
def test_a_server_that_goes_away_loses_nothing(
    tmp_path: Path,
    server: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    returns: bool,
) -> None:
    key = f"goes-away-{returns}"
    gate = Gate(server)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{gate.port}")
    store = connect()

    def train() -> Iterator[dict[str, float]]:
        for epoch in range(1, 6):
            if epoch == 3:
                gate.shut()
            if epoch == 5 and returns:
                gate.open()
            yield {"epoch": epoch, "val_loss": 1 / epoch}

    history = record_training(store, key, {}, train(), DATA)
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5]
    assert capsys.readouterr().err.count("warning: MLflow cannot be reached") == 1
    if not returns:
        gate.open()
        # What evaluate does first, and `phototag sync` for experiments.
        find_or_rebuild_run(store, key, {}, pd.DataFrame(history), "")
    run = find_run(store, key, "")
    assert run
    logged = store.client.get_metric_history(run.info.run_id, "val_loss")
    assert [metric.step for metric in logged] == [1, 2, 3, 4, 5]
    assert run.info.status == "FINISHED"
    gate.shut()


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_waits_for_the_end_of_a_call_to_the_store(
    number: signal.Signals, error: type[BaseException]
) -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Where the tests run in the background, they ignore Ctrl-C.
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)
    reached = []

    def call_the_store(signals: int, what: str) -> None:
        with hold_signals():
            for _ in range(signals):
                signal.raise_signal(number)
            reached.append(what)

    try:
        with pytest.raises(error):
            call_the_store(1, "the end")
        assert reached == ["the end"]
        # Whoever asks twice does not wait.
        with pytest.raises(error):
            call_the_store(2, "never")
        assert reached == ["the end"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        call_the_store(0, "quiet")
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, ctrl_c)
