"""Runs rebuilt from the files that git tracks, in a real MLflow store."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from filelock import FileLock, Timeout
from mlflow.entities import Run
from typer.testing import CliRunner

from phototag.base.errors import InputError
from phototag.cli import typer_app
from phototag.experiments.dvc_tools import WORKSPACE, read_data_hash, read_revision
from phototag.experiments.sync import sync_runs
from phototag.tracking.runs import Training, create_run, find_run
from phototag.tracking.store import Store, connect
from phototag.tracking.training import record_training

HISTORY = "epoch,val_loss,lr\n1,0.3,0.001\n2,0.2,0.001\n"


class Repository:
    """A git repository with a DVC project at its top or in a folder."""

    def __init__(self, top: Path, project: str) -> None:
        self.top, self.root = top, top / project
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / ".dvc").mkdir()
        (self.root / ".dvc/config").touch()
        self.git("init", "-q")

    def git(self, *arguments: str) -> str:
        names = ["-c", "user.name=t", "-c", "user.email=t"]
        command = ["git", "-C", str(self.top), *names, *arguments]
        return subprocess.check_output(command, text=True).strip()

    def write(self, key: str, lr: float = 0.001, loss: float | None = 0.25) -> None:
        """Write the results of a training, and of an evaluation if a loss is given."""
        texts = {
            "params.yaml": yaml.safe_dump({"lr": lr}),
            "reports/train/training.json": json.dumps({"content_key": key}),
            "reports/train/history.csv": HISTORY,
        }
        if loss is not None:
            texts["reports/evaluate/metrics.json"] = json.dumps({"loss": loss})
        for name, text in texts.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "results")
        return self.git("rev-parse", "HEAD")


@pytest.fixture(params=[".", "tools/what? ü"])
def repository(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    empty_database: Path,
) -> Repository:
    made = Repository(tmp_path / "repository", request.param)
    shutil.copy(empty_database, made.root)
    (made.root / ".gitignore").write_text("mlflow.db*\n/.dvc/tmp\n")
    monkeypatch.setenv("DVC_ROOT", str(made.root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("DVC_EXP_NAME", "")
    monkeypatch.chdir(made.root)
    return made


def runs(store: Store) -> dict[str, Run]:
    found = store.client.search_runs([store.experiment_id])
    return {run.data.tags["phototag.content_key"]: run for run in found}


def test_sync_creates_runs_of_commits_and_working_tree(repository: Repository) -> None:
    repository.write("one", lr=0.1)
    first = repository.commit()
    repository.write("two", lr=0.2)
    second = repository.commit()
    repository.write("three", loss=None)
    (repository.root / "reports/evaluate/metrics.json").unlink()
    store = connect()
    assert sync_runs(store, repository.root, history=False) == (["the workspace"], [], [])
    added, tagged, _ = sync_runs(store, repository.root)
    assert added == [first[:7], second[:7]]
    assert tagged == [first[:7], second[:7]]
    found = runs(store)
    assert found["one"].data.params == {"lr": "0.1"}
    assert found["one"].data.tags["mlflow.source.git.commit"] == first
    assert found["two"].data.tags["phototag.revision"] == second
    assert found["two"].data.metrics["test_loss"] == 0.25
    assert found["three"].data.metrics["best_val_loss"] == 0.2
    assert "test_loss" not in found["three"].data.metrics
    assert sync_runs(store, repository.root) == ([], [], [])

    # The model was evaluated while the store could not be reached.
    repository.write("three", loss=float("nan"))
    assert sync_runs(store, repository.root) == (["the workspace"], [], [])
    assert "test_loss" in runs(store)["three"].data.metrics
    assert sync_runs(store, repository.root) == ([], [], [])

    # A commit with the same model, evaluated with other params, gets a run with these params.
    values = {"lr": 0.2, "evaluate": {"prior_strength": 1}}
    repository.write("two", lr=0.2, loss=0.75)
    (repository.root / "params.yaml").write_text(yaml.safe_dump(values))
    again = repository.commit()
    added, _, _ = sync_runs(store, repository.root)
    assert added == [again[:7]]
    (evaluated,) = store.client.search_runs(
        [store.experiment_id], "params.`evaluate.prior_strength` = '1'"
    )
    assert evaluated.data.metrics["test_loss"] == 0.75
    assert sync_runs(store, repository.root) == ([], [], [])

    # A run of another machine, which trains the same model again, is not changed.
    other = create_run(store, Training("three", tags={"phototag.process": "other-machine:1:1"}))
    assert sync_runs(store, repository.root) == ([], [], [])
    assert store.client.get_run(other).info.status == "RUNNING"
    assert len(store.client.search_runs([store.experiment_id])) == 5


@pytest.mark.parametrize("repository", ["."], indirect=True)
def test_two_commands_do_not_add_the_same_runs(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sync_while_locked(*_: object) -> tuple[list[str], list[str], list[str]]:
        with pytest.raises(Timeout):
            FileLock(repository.root / ".phototag/locks/sync").acquire(timeout=0)
        return [], [], []

    monkeypatch.setattr("phototag.experiments.sync.sync_runs", sync_while_locked)
    result = CliRunner().invoke(typer_app, ["sync"])
    assert result.stdout.startswith("MLflow runs created: 0\n"), result.output


@pytest.mark.parametrize("repository", ["."], indirect=True)
def test_scores_that_metrics_json_no_longer_has_are_added_once(repository: Repository) -> None:
    for scores in ({"loss": 0.25, "f1_samples": 0.5, "f1_micro_at_0.5": 0.75}, {"loss": 0.25}):
        repository.write("one")
        (repository.root / "reports/evaluate/metrics.json").write_text(json.dumps(scores))
        commit = repository.commit()
    store = connect()
    assert sync_runs(store, repository.root, history=False)[0] == []  # without a model
    added, _, unreadable = sync_runs(store, repository.root)
    assert (len(added), unreadable) == (1, [])
    assert added != [commit[:7]]
    assert runs(store)["one"].data.metrics["test_f1_micro_at_0.5"] == 0.75
    assert sync_runs(store, repository.root) == ([], [], [])


@pytest.mark.parametrize("repository", ["."], indirect=True)
def test_commit_gets_a_run_with_its_time_if_its_model_is_present(repository: Repository) -> None:
    repository.write("old")
    repository.commit()
    repository.write("key")
    (repository.root / "reports/train/training.json").write_text(
        json.dumps({"content_key": "key", "dataset": "holiday", "photos": "8 train, 1 val"})
    )
    (repository.root / "recipes.yaml").write_text("base: {lr: 1}\nrecipes: {}\n")
    commit = repository.commit()
    store = connect()
    # The clone has results of other people, but not their model.
    assert sync_runs(store, repository.root, history=False) == ([], [], [])
    (repository.root / ".git/info/exclude").write_text("models\n")
    (repository.root / "models").mkdir()
    (repository.root / "models/model.safetensors").touch()
    expected: tuple[list[str], list[str], list[str]] = ([commit[:7]], [commit[:7]], [])
    assert sync_runs(store, repository.root, history=False) == expected
    (run,) = runs(store).values()
    seconds = int(repository.git("show", "-s", "--format=%ct"))
    assert run.info.start_time == run.info.end_time == 1000 * seconds
    assert run.info.run_name == f"9 photos, commit {commit[:7]}"
    assert run.data.tags["dataset"] == "holiday"
    assert run.data.tags["phototag.rebuilt"] == "true"
    assert "`loss 0.25`" in run.data.tags["mlflow.note.content"]
    assert sync_runs(store, repository.root, history=False) == ([], [], [])


@pytest.mark.parametrize("repository", ["."], indirect=True)
def test_scores_are_added_to_a_repeated_training(repository: Repository) -> None:
    """DVC does not repeat an evaluation whose inputs are the same."""
    repository.write("key")
    store = connect()
    sync_runs(store, repository.root)
    time.sleep(0.002)  # MLflow compares start times in milliseconds
    training = Training("key", {"lr": 0.001})
    record_training(store, training, [{"epoch": 1, "val_loss": 0.2}])
    newest = find_run(store, training)
    assert newest
    assert "test_loss" not in newest.data.metrics
    assert sync_runs(store, repository.root) == (["the workspace"], [], [])
    assert store.client.get_run(newest.info.run_id).data.metrics["test_loss"] == 0.25
    assert sync_runs(store, repository.root) == ([], [], [])


def test_sync_ignores_scores_of_another_model(repository: Repository) -> None:
    """dvc.lock shows that the model was trained again after the evaluation."""
    repository.write("key", lr=0.1)
    (repository.root / "params.yaml").write_text("lr: 0.1\nresize: {size: 128}\n")
    model = "models/model.safetensors"
    lock = {
        "resize": {"params": {"params.yaml": {"resize.size": 64, "renamed": 1}}},
        "train": {
            "outs": [{"path": model, "md5": "new"}],
            "params": {"params.yaml": {"lr": 0.3}},
        },
        "evaluate": {"deps": [{"path": model, "md5": "old"}]},
    }
    (repository.root / "dvc.lock").write_text(yaml.safe_dump({"stages": lock}))
    store = connect()
    repository.git("commit", "-q", "--allow-empty", "-m", "nothing")
    sync_runs(store, repository.root)
    run = runs(store)["key"]
    assert "test_loss" not in run.data.metrics
    # dvc.lock has the params that were used; params.yaml has changed since.
    assert run.data.params == {"lr": "0.3", "resize.size": "64"}


CONFLICT = "{\n<<<<<<< HEAD\n}\n=======\n>>>>>>> other\n"
DAMAGED = {
    "dvc.lock": [CONFLICT, "stages:\n  train:\n"],
    "params.yaml": ["- 1"],
    "reports/train/training.json": ["{}", "[]", '{"content_'],
    "reports/train/history.csv": [HISTORY + CONFLICT, "epoch,val_loss,lr\n", "\n"],
    "reports/evaluate/metrics.json": ["[]", '{"loss": null}'],
}


@pytest.mark.parametrize("repository", ["."], indirect=True)
def test_damaged_results_are_skipped_and_named(repository: Repository) -> None:
    commits: list[str] = []
    reasons: list[str] = []
    for name, texts in DAMAGED.items():
        for text in texts:
            repository.write(f"key {len(commits)}")
            (repository.root / "dvc.lock").write_text("{}")
            (repository.root / name).write_text(text)
            commits.append(repository.commit()[:7])
            reasons.append(f"{name} holds merge conflict" if CONFLICT in text else name)
    (repository.root / "dvc.lock").write_text("{}")
    repository.write("good")
    good = repository.commit()[:7]
    repository.git("checkout", "-q", "--detach")
    repository.write("detached")
    detached = repository.commit()[:7]
    store = connect()
    added, tagged, unreadable = sync_runs(store, repository.root)
    assert added == tagged == [good, detached]
    assert [text.split()[0] for text in unreadable] == commits
    for text, reason in zip(unreadable, reasons, strict=False):
        assert reason in text or "Error: " in text
    shown = CliRunner().invoke(typer_app, ["sync"])
    assert shown.stderr == f"warning: these results were skipped: {'; '.join(unreadable)}\n"
    assert shown.stdout == "MLflow runs created: 0\n"
    # Without registry.name, the command cannot know the MLflow experiment.
    (repository.root / "params.yaml").write_text(CONFLICT)
    failed = CliRunner().invoke(typer_app, ["sync"])
    assert "params.yaml holds merge conflict markers" in str(failed.exception)
    (repository.root / "dvc.lock").write_text(CONFLICT)
    with pytest.raises(InputError, match=r"dvc\.lock holds merge conflict markers"):
        read_data_hash(repository.root, WORKSPACE)


@pytest.mark.parametrize("repository", ["."], indirect=True)
@pytest.mark.parametrize(
    "state", ["empty repository", "new branch", "no repository", "core.no_scm"]
)
def test_sync_without_commits_adds_the_working_tree(repository: Repository, state: str) -> None:
    expected = ["the workspace"]
    if state == "new branch":
        repository.write("old")
        expected.insert(0, repository.commit()[:7])
        repository.git("checkout", "-q", "--orphan", "new")
    repository.write("key")
    if state == "no repository":
        shutil.rmtree(repository.top / ".git")
    elif state == "core.no_scm":
        (repository.root / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    assert sync_runs(connect(), repository.root) == (expected, expected[:-1], [])


def test_read_revision_takes_paths_relative_to_the_project(repository: Repository) -> None:
    repository.write("key")
    revision = repository.commit()
    (repository.root / "params.yaml").write_text("lr: 9\n")
    assert read_revision(repository.root, revision, "params.yaml") == "lr: 0.001\n"
    assert read_revision(repository.root, "", "params.yaml") == "lr: 9\n"
    assert read_revision(repository.root, revision, "other.yaml") is None
    history = read_revision(repository.root, revision, "reports/train/history.csv")
    assert history == HISTORY
    assert list(pd.read_csv(repository.root / "reports/train/history.csv")["epoch"]) == [1, 2]
