import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from phototag.tracking.records import log_folder, log_scores
from phototag.tracking.runs import create_run, find_or_rebuild_run
from phototag.tracking.store import Store, connect

HISTORY = pd.DataFrame({"epoch": [1, 2], "val_loss": [0.3, 0.2], "lr": [1e-3, 1e-3]})


def test_run_of_this_machine_is_preferred(store: Store) -> None:
    own = find_or_rebuild_run(store, "key", {}, HISTORY, "")
    other = create_run(store, "key", {}, {"phototag.process": "other-machine:1:1"}, "")
    store.client.set_terminated(other)
    assert find_or_rebuild_run(store, "key", {}, HISTORY, "") == own


def test_run_has_the_commit_of_the_working_directory(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queued experiment runs in a copy, and the main checkout may have other commits."""
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


def test_run_is_rebuilt_once_per_experiment(store: Store) -> None:
    first = find_or_rebuild_run(store, "key", {"lr": 1}, HISTORY, "")
    assert find_or_rebuild_run(store, "key", {"lr": 1}, HISTORY, "") == first
    named = find_or_rebuild_run(store, "key", {"lr": 1}, HISTORY, "bold-ant")
    assert named != first
    run = store.client.get_run(named)
    assert run.info.run_name == "bold-ant"
    assert run.data.metrics["val_loss"] == 0.2
    history = store.client.get_metric_history(named, "val_loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.3), (2, 0.2)]


def test_artifacts_of_a_temporary_copy_are_stored_in_the_root(
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


def test_later_scores_replace_earlier_ones(store: Store) -> None:
    run_id = create_run(store, "key", {}, {}, "")
    for value in (0.3, 0.1):
        time.sleep(0.002)  # MLflow compares timestamps in milliseconds
        log_scores(store, run_id, {"loss": value})
        assert store.client.get_run(run_id).data.metrics["test_loss"] == value
