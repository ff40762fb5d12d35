import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from phototag.tracking.runs import Training, create_run, find_or_rebuild_run, log_scores
from phototag.tracking.store import Store

HISTORY = pd.DataFrame({"epoch": [1, 2], "val_loss": [0.3, 0.2], "lr": [1e-3, 1e-3]})


def test_run_of_this_machine_is_preferred(store: Store) -> None:
    own = find_or_rebuild_run(store, Training("key"), HISTORY)
    other = create_run(store, Training("key", tags={"phototag.process": "other-machine:1:1"}))
    store.client.set_terminated(other)
    assert find_or_rebuild_run(store, Training("key"), HISTORY) == own


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
    monkeypatch.chdir(tmp_path / "copy")
    tags = store.client.get_run(create_run(store, Training("key"))).data.tags
    assert tags["mlflow.source.git.commit"] == commits[1] != commits[0]


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
        log_scores(store, run_id, {"loss": value})
        assert store.client.get_run(run_id).data.metrics["test_loss"] == value
