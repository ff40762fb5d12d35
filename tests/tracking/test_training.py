import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import psutil
import pytest
import yaml

from phototag.evaluation.result import HEADLINE, headline
from phototag.tracking import runs
from phototag.tracking.description import name_dataset
from phototag.tracking.evaluations import log_evaluation, log_missing_scores, record_evaluation
from phototag.tracking.runs import (
    Training,
    create_run,
    find_or_rebuild_run,
    find_run,
    log_folder,
    log_metrics,
)
from phototag.tracking.store import Store, connect
from phototag.tracking.training import record_training, training_run
from tests.conftest import SHIPPED_PARAMS
from tests.forks import fork
from tests.servers import WITHOUT_JOBS, Gate, free_port, run_server

HISTORY = pd.DataFrame({"epoch": [1, 2], "val_loss": [0.3, 0.2], "lr": [1e-3, 1e-3]})


def test_training_run_has_params_metrics_commit_dataset_and_environment(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"  # a queued experiment runs in a copy, which has its own commit
    copy.mkdir()
    monkeypatch.chdir(copy)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t"]
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True)
    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    epochs = [
        {"epoch": 1, "val_loss": 0.3, "mAP": 0.5, "best_epoch": 1},
        {"epoch": 2, "val_loss": 0.4, "mAP": 0.6, "best_epoch": 2},
        {"epoch": 3, "val_loss": 0.5, "mAP": 0.4, "best_epoch": 2},
    ]

    def train() -> Iterator[dict[str, float]]:
        yield from epochs[:2]
        deadline = time.monotonic() + 60
        (run_id,) = running(store)
        while time.monotonic() < deadline:  # until system metrics are sampled
            if "system/cpu_utilization_percentage" in store.client.get_run(run_id).data.metrics:
                break
        yield epochs[2]

    params = {"lr": 0.1, "model": {"conv": [{"out": 20}]}}
    training = Training("key", params, {"data_fingerprint": "f" * 16})
    record_training(store, training, train())
    (run,) = store.client.search_runs([store.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.1", "model.conv.0.out": "20"}
    best = {name: run.data.metrics[f"best_{name}"] for name in ("epoch", "val_loss", "mAP")}
    assert best == {"epoch": 2, "val_loss": 0.4, "mAP": 0.6}
    assert "system/cpu_utilization_percentage" in run.data.metrics
    assert run.data.tags["mlflow.source.git.commit"] == commit
    assert run.data.tags["data_fingerprint"] == "f" * 16
    text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/environment.txt")
    assert text.startswith("# Python 3")
    note = store.client.get_experiment(store.experiment_id).tags["mlflow.note.content"]
    assert "content_key" in note


def test_each_split_is_a_dataset_with_its_counts(store: Store) -> None:
    """MLflow has one profile for each pair of name and digest."""
    runs = []
    for seed in ("0", "1"):
        splits: dict[str, Any] = {
            "train": {"fingerprint": f"train{seed}", "photos": 3, "labels": {"sea": int(seed)}},
            "val": {"fingerprint": f"val{seed}", "photos": 2, "labels": {"sea": 1}},
        }
        record_training(store, Training(f"key{seed}", splits=splits), [{"epoch": 1, "val_loss": 1}])
        runs.append(splits)
    for number, splits in enumerate(runs):
        run = find_run(store, Training(f"key{number}"))
        assert run
        logged = {each.tags[0].value: each.dataset for each in run.inputs.dataset_inputs}
        assert set(logged) == {"train", "val"}
        for name, dataset in logged.items():
            assert dataset.name == name
            assert json.loads(dataset.profile) == splits[name]


def leave_running_run(root: Path) -> None:
    os.environ |= {"DVC_ROOT": str(root), "MLFLOW_TRACKING_URI": ""}
    with training_run(connect(), Training("old")):
        os._exit(9)


def test_runs_of_dead_processes_are_set_to_killed(store: Store, tmp_path: Path) -> None:
    fork(leave_running_run, tmp_path).join()
    other = create_run(store, Training("elsewhere", tags={"phototag.process": "host:1:1"}))
    (dead,) = [run for run in running(store) if run != other]
    with training_run(store, Training("new")) as own:
        assert set(running(store)) == {other, own}
    run = store.client.get_run(dead)
    assert run.info.status == "KILLED"
    assert run.data.tags["phototag.error"] == "the process was killed"


def running(store: Store) -> list[str]:
    found = store.client.search_runs([store.experiment_id], "attributes.status = 'RUNNING'")
    return [run.info.run_id for run in found]


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(1), "KILLED")],
)
def test_interrupted_run_has_a_status_and_is_resumed(
    store: Store, error: BaseException, status: str
) -> None:
    with pytest.raises(type(error)), training_run(store, Training("key")) as run_id:
        raise error
    run = store.client.get_run(run_id)
    assert run.info.status == status
    assert run.data.tags.get("phototag.error") == ("ValueError: no" if status == "FAILED" else None)
    with training_run(store, Training("key")) as again:
        assert again == run_id
        assert store.client.get_run(run_id).info.status == "RUNNING"
    assert store.client.get_run(run_id).info.status == "FINISHED"


def test_resumed_experiment_renames_its_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "killed-ant")
    with pytest.raises(SystemExit), training_run(store, Training("key")) as run_id:
        raise SystemExit
    monkeypatch.setenv("DVC_EXP_NAME", "bold-bee")
    with training_run(store, Training("key")) as fresh:  # without a checkpoint
        assert fresh != run_id
    monkeypatch.setenv("DVC_EXP_NAME", "calm-cat")
    with training_run(store, Training("key"), resumed=True) as again:
        assert again == run_id
    run = store.client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("calm-cat", "FINISHED")
    found = find_run(store, Training("key"))
    assert found
    assert found.info.run_id == run_id
    assert find_run(store, Training("key", exp_name="killed-ant")) is None


def test_run_of_this_machine_is_preferred(store: Store) -> None:
    own = find_or_rebuild_run(store, Training("key"), HISTORY)
    other = create_run(store, Training("key", tags={"phototag.process": "other-machine:1:1"}))
    store.client.set_terminated(other)
    assert find_or_rebuild_run(store, Training("key"), HISTORY) == own


def test_run_is_rebuilt_once_per_experiment(store: Store) -> None:
    first = find_or_rebuild_run(store, Training("key"), HISTORY)
    assert find_or_rebuild_run(store, Training("key"), HISTORY) == first
    named = find_or_rebuild_run(store, Training("key", exp_name="bold-ant"), HISTORY)
    assert named != first
    run = store.client.get_run(named)
    assert run.info.run_name == "bold-ant"
    assert run.data.metrics["val_loss"] == 0.2
    history = store.client.get_metric_history(named, "val_loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.3), (2, 0.2)]


def test_later_scores_replace_earlier_ones(store: Store) -> None:
    run_id = create_run(store, Training("key"))
    for value in (0.3, 0.1):
        time.sleep(0.002)  # MLflow compares timestamps in milliseconds
        log_evaluation(store, run_id, {"loss": value}, Path("missing"))
        assert store.client.get_run(run_id).data.metrics["test_loss"] == value


def test_scores_are_logged_to_a_run_with_the_params_of_the_evaluation(
    store: Store, tmp_path: Path
) -> None:
    """`dvc repro` evaluates the same model three times, the third time with the first params."""
    splits = {"val": {"fingerprint": "f", "photos": 2, "labels": {"sea": 1}}}
    run_ids = []
    (tmp_path / "evaluate").mkdir()
    for strength in (10, 1, 10):
        params = {"lr": 0.1, "evaluate": {"prior_strength": strength}}
        training = Training("key", params, splits=splits)
        record_evaluation(store, training, HISTORY, {"loss": 1 / strength}, tmp_path / "evaluate")
        run_ids.append(find_or_rebuild_run(store, training, HISTORY))
        run = store.client.get_run(run_ids[-1])
        assert run.data.params == {"lr": "0.1", "evaluate.prior_strength": str(strength)}
        assert run.data.metrics["test_loss"] == 1 / strength
        assert run.data.metrics["best_val_loss"] == 0.2
        assert [each.dataset.digest for each in run.inputs.dataset_inputs] == ["f"]
    assert run_ids[0] == run_ids[2] != run_ids[1]
    target = {"evaluate": {"target": {"c++ & c": {"recall": 0.9}}}}
    run_id = find_or_rebuild_run(store, Training("other", target), HISTORY)
    assert store.client.get_run(run_id).data.params == {"evaluate.target.c__ _ c.recall": "0.9"}
    # A param that no score depends on does not need another run.
    params = {"lr": 0.1, "evaluate": {"prior_strength": 10}, "registry": {"experiments": True}}
    assert find_or_rebuild_run(store, Training("key", params), HISTORY) == run_ids[0]


def test_scores_of_a_restored_evaluation_are_logged_once(store: Store, tmp_path: Path) -> None:
    """DVC restored the evaluation, so only `register` can log its scores."""
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate/report.html").write_text("page")
    run_id = find_or_rebuild_run(store, Training("key", splits=SPLITS), HISTORY)
    for value in (0.5, 0.7):
        log_missing_scores(store, run_id, {"loss": value}, tmp_path / "evaluate")
        run = store.client.get_run(run_id)
        assert run.data.metrics["test_loss"] == 0.5
    assert mlflow.artifacts.load_text(f"runs:/{run_id}/evaluate/report.html") == "page"
    # Scores of a part of the metrics are completed.
    log_missing_scores(store, run_id, {"loss": 0.7, "mAP": 1}, tmp_path / "evaluate")
    assert store.client.get_run(run_id).data.metrics["test_mAP"] == 1


def test_datasets_are_added_to_a_run_that_was_created_without_them(store: Store) -> None:
    run_id = find_or_rebuild_run(store, Training("key"), HISTORY)
    for _ in range(2):
        assert find_or_rebuild_run(store, Training("key", splits=SPLITS), HISTORY) == run_id
    logged = store.client.get_run(run_id).inputs.dataset_inputs
    assert sorted(each.dataset.name for each in logged) == ["test", "train", "val"]


def test_scores_are_named_after_the_evaluated_photos(store: Store) -> None:
    table = pd.DataFrame(HEADLINE.values(), columns=["predictor", "metric"]).assign(value=0.5)
    expected = {
        "test": {f"test_{name}" for name in HEADLINE},
        # These names differ from those of the metrics of each epoch, such as val_loss.
        "val": {f"final_val_{name}" for name in HEADLINE},
        "cross-validation": {f"cross_validation_{name}" for name in HEADLINE},
    }
    for split, names in expected.items():
        run_id = create_run(store, Training("key"))
        log_evaluation(store, run_id, headline(table, split), Path("missing"))
        assert set(store.client.get_run(run_id).data.metrics) == names


OTHERS = ["other-machine:1:1", "", "live"]


@pytest.fixture
def process(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of a process that may be running: of another machine, empty, or of this machine."""
    if request.param != "live":
        yield request.param
        return
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as live:
        yield f"{socket.gethostname()}:{live.pid}:{psutil.Process(live.pid).create_time():.0f}"


@pytest.mark.parametrize("process", OTHERS, indirect=True)
@pytest.mark.parametrize("experiment", ["first", "second"])
def test_run_of_an_active_process_is_not_reused(
    store: Store, monkeypatch: pytest.MonkeyPatch, process: str, experiment: str
) -> None:
    """Another process trains with the same content key."""
    other = create_run(store, Training("key", tags={"phototag.process": process}, exp_name="first"))
    monkeypatch.setenv("DVC_EXP_NAME", experiment)
    for resumed in (True, False):
        with training_run(store, Training("key"), resumed) as own:
            assert own != other
    assert find_or_rebuild_run(store, Training("key"), HISTORY) == own
    run = store.client.get_run(other)
    assert (run.info.status, run.info.run_name) == ("RUNNING", "first")
    assert run.data.metrics == {}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a real MLflow server with its own store."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}"]
    command += ["--artifacts-destination", str(folder / "served")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    environment |= WITHOUT_JOBS
    with run_server(command, f"http://127.0.0.1:{port}/health", folder, environment):
        yield port


@pytest.mark.slow
def test_rebuilt_run_is_complete_on_an_http_server(
    tmp_path: Path, server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server}")
    store = connect()
    run_id = find_or_rebuild_run(store, Training("over-http", {"lr": 1}), HISTORY)
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "report.html").write_text("page")
    log_evaluation(store, run_id, {"loss": 0.1}, Path("missing"))
    log_folder(store, run_id, tmp_path / "evaluate")
    assert store.client.get_run(run_id).data.metrics["test_loss"] == 0.1
    shown = mlflow.artifacts.load_text(f"runs:/{run_id}/evaluate/report.html")
    assert shown == "page"
    assert not (tmp_path / "mlartifacts").exists()


@pytest.mark.slow
@pytest.mark.parametrize("returns", [True, False])
def test_epochs_of_an_outage_are_logged_later(
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

    history = record_training(store, Training(key), train())
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5]
    assert capsys.readouterr().err.count("warning: MLflow at http") == 1
    if not returns:
        gate.open()
        # `evaluate` and `phototag sync` do this.
        find_or_rebuild_run(store, Training(key), pd.DataFrame(history))
    run = find_run(store, Training(key))
    assert run
    logged = store.client.get_metric_history(run.info.run_id, "val_loss")
    assert [metric.step for metric in logged] == [1, 2, 3, 4, 5]
    assert run.info.status == "FINISHED"
    gate.shut()


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_signal_does_not_interrupt_a_call_of_the_store(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    error: type[BaseException],
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    # Tests that run in the background ignore Ctrl-C.
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)
    completed = []

    def log_and_raise(*arguments: Any) -> None:
        os.kill(os.getpid(), number)
        time.sleep(0.2)
        log_metrics(*arguments)
        completed.append(arguments)

    monkeypatch.setattr(runs, "log_metrics", log_and_raise)
    try:
        with pytest.raises(error):
            record_training(store, Training("key"), [{"epoch": 1, "val_loss": 0.5}])
    finally:
        signal.signal(signal.SIGINT, ctrl_c)
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(completed) == 1
    (run,) = store.client.search_runs([store.experiment_id])
    assert (run.info.status, run.data.metrics["val_loss"]) == ("KILLED", 0.5)


SPLITS = {
    name: {"fingerprint": name, "photos": count, "labels": {}}
    for name, count in (("train", 360), ("val", 45), ("test", 45))
}
NOTE = "mlflow.note.content"


def test_run_states_what_was_trained_on_what_with_which_result(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(SHIPPED_PARAMS.parent / "recipes.yaml", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/manifest.csv").write_text(
        "file,import,sea\na.jpg,002-new,1\nb.jpg,001-holiday,0\nc.jpg,002-new,1\n"
    )
    params = yaml.safe_load(SHIPPED_PARAMS.read_text()) | {"lr": 0.5}
    training = Training("key", params, splits=SPLITS)
    record_training(store, training, json.loads(HISTORY.to_json(orient="records")))
    run = find_run(store, training)
    assert run
    tags = {name: run.data.tags[name] for name in ("dataset", "photos", "recipe")}
    photos = "360 train, 45 val, 45 test"
    assert tags == {"dataset": "holiday, new", "photos": photos, "recipe": "report, changed"}
    # The time is the local time at which the run was created, in any time zone.
    moment = datetime.fromtimestamp(run.info.start_time / 1000)
    end = r"\d{1,2} [A-Z][a-z]{2} \d\d:\d\d"
    assert re.fullmatch(f"report, changed, 450 photos, {end}", run.info.run_name)
    shown = run.info.run_name.rpartition(", ")[2]
    shown_time = datetime.strptime(f"{moment.year} {shown}", "%Y %d %b %H:%M")
    assert abs(shown_time - moment) < timedelta(minutes=2)
    for text in ("`conv`", "`holiday, new`", f"`{photos}`", "`report, changed`", "val_loss 0.2"):
        assert text in run.data.tags[NOTE]
    assert "test" not in run.data.tags[NOTE].replace(photos, "")

    log_evaluation(store, run.info.run_id, {"f1_micro": 0.75}, Path("missing"))
    note = store.client.get_run(run.info.run_id).data.tags[NOTE]
    assert "- Scores on test: `f1_micro 0.75`" in note
    # A description that a user edited is not replaced.
    store.client.set_tag(run.info.run_id, NOTE, "the good one")
    log_evaluation(store, run.info.run_id, {"f1_micro": 0.8}, Path("missing"))
    assert store.client.get_run(run.info.run_id).data.tags[NOTE] == "the good one"

    probe = Training("probe", params | {"optimizer": "lbfgs"}, splits=SPLITS)
    record_training(store, probe, json.loads(HISTORY.to_json(orient="records")))
    run = find_run(store, probe)
    assert run
    assert "- Linear probe fitted on train and val; scores by cross" in run.data.tags[NOTE]


MANY = ", ".join(f"{n}nnnnnnnnn" for n in (0, 1, 10, 100, 101, 102, 103)) + ", ..."


@pytest.mark.parametrize(
    ("raw", "manifest", "dataset"),
    [
        ("data/sample", "file,sea\n", "synthetic images"),
        ("data/raw.zip", "file,import,sea\na,,1\n", "data/raw.zip"),
        ("data/raw", None, "data/raw"),
        (None, None, ""),
        ("data/raw", "import\n002-new\n001-old\n001-old\n", "old, new"),
        ("data/raw", "import\n" + "".join(f"{i}-{i}{'n' * 9}\n" for i in range(999)), MANY),
        ("data/raw", "import\n001-`*<b>\n", "`*<b>"),
    ],
)
def test_dataset_is_named_after_its_imports(
    tmp_path: Path, raw: str | None, manifest: str | None, dataset: str
) -> None:
    path = tmp_path / "manifest.csv"
    if manifest is not None:
        path.write_text(manifest)
    found = name_dataset({"data": {"raw": raw}}, path)
    assert found == dataset


def test_resumed_training_keeps_the_name_of_its_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit), training_run(store, Training("key")) as run_id:
        raise SystemExit
    store.client.update_run(run_id, name="my name")
    with training_run(store, Training("key"), resumed=True) as again:
        assert again == run_id
    assert store.client.get_run(run_id).info.run_name == "my name"


def test_rebuilt_run_of_a_commit_has_its_time_and_name(store: Store) -> None:
    tags = {"mlflow.source.git.commit": "abcdef0123", "recipe": "pretrained"}
    training = Training("key", tags=tags, commit_time=1_500_000_000_000)
    run_id = find_or_rebuild_run(store, training, HISTORY)
    info = store.client.get_run(run_id).info
    assert info.run_name == "pretrained, commit abcdef0"
    assert info.start_time == info.end_time == 1_500_000_000_000
