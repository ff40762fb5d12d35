"""Workspaces of a repository with git and DVC."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from phototag.base.errors import InputError
from phototag.experiments import workspaces
from phototag.experiments.dvc_tools import (
    list_experiments,
    read_revision,
    run_dvc,
)
from phototag.experiments.workspaces import make_workspace, run_experiments, save_experiment

STAGES = """stages:
  normalize-stats: {cmd: wc -c < data/own/a > stats, deps: [data/own], outs: [stats]}
  embed: {cmd: touch features, outs: [features]}
"""


def run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with a project without photos."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "ann")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ann@example.org")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dvc.yaml").write_text(STAGES)
    params = {"data": {"raw": "data/own"}, "model": {"weights": None}, "seed": 0}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    run(folder, "git", "init", "--quiet")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "--quiet", "-m", "first")
    run(folder, "git", "commit", "--quiet", "--allow-empty", "-m", "second")
    return folder


@pytest.mark.slow
def test_make_workspace_restores_the_users_photos(root: Path) -> None:
    (root / "data/own").mkdir(parents=True)
    (root / "data/own/a").write_text("photo")
    run(root, "dvc", "init", "--quiet")
    untracked = (
        r"cannot get data/own .* `dvc add data/own` and `git add data/own.dvc data/.gitignore"
    )
    with pytest.raises(InputError, match=untracked):
        make_workspace(root, 0)
    run(root, "dvc", "add", "--quiet", "data/own")
    run(root, "git", "add", "data/own.dvc")
    with pytest.raises(InputError, match=untracked):  # git does not ignore the photos
        make_workspace(root, 0)
    run(root, "git", "add", "data/.gitignore")  # staged files are copied without a commit
    run(root, "dvc", "config", "--local", "cache.type", "symlink")
    place = make_workspace(root, 0)
    assert (place / "data/own/a").read_text() == "photo"
    assert (place / "data/own/a").is_symlink()
    assert not (place / "stats").exists()  # no stage has run
    run(root, "dvc", "repro", "--quiet")
    run(root, "git", "add", "dvc.lock")
    place = make_workspace(root, 1)
    assert (place / "stats").read_text().strip() == "5"

    shutil.rmtree(root / ".dvc/cache")
    with pytest.raises(InputError, match=r"cannot get data/own from DVC's cache"):
        make_workspace(root, 0)
    (root / "params.yaml").write_text("data: {raw: ../own}\n")
    with pytest.raises(InputError, match=r"\.\./own .* set data.raw to an absolute path"):
        make_workspace(root, 0)


@pytest.fixture
def fake_dvc(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Stages that do nothing; the test may change what `repro` does."""

    def fake(place: Path, *arguments: str, **options: Any) -> None:
        # `dvc exp run --run-all` would also run the experiments in the user's queue.
        assert arguments[0] in ("checkout", "repro")
        if arguments[0] == "repro":
            fake.repro(place, *arguments[1:])  # type: ignore[attr-defined]

    fake.repro = lambda place, *stages: None  # type: ignore[attr-defined]
    monkeypatch.setattr(workspaces, "run_dvc", fake)
    for name in ("_share_cache", "_check_photos"):
        monkeypatch.setattr(workspaces, name, lambda *paths: None)
    monkeypatch.setattr(workspaces, "update_params", lambda path, values: None)
    return fake


@pytest.mark.usefixtures("fake_dvc")
@pytest.mark.parametrize("kind", ["clone", "shallow", "detached", "worktree", "submodule"])
def test_a_workspace_has_uncommitted_changes_and_saves_experiments(
    kind: str, root: Path, tmp_path: Path
) -> None:
    copy, url = tmp_path / "copy", root.as_uri()
    if kind == "worktree":
        run(root, "git", "worktree", "add", "--quiet", str(copy))
    elif kind == "submodule":
        run(tmp_path, "git", "init", "--quiet", "outer")
        allowed = ("-c", "protocol.file.allow=always")
        run(tmp_path / "outer", "git", *allowed, "submodule", "--quiet", "add", url, "inner")
        copy = tmp_path / "outer/inner"
    else:
        depth = ["--depth", "1"] if kind == "shallow" else []
        run(tmp_path, "git", "clone", "--quiet", *depth, url, str(copy))
        if kind == "detached":
            run(copy, "git", "checkout", "--quiet", "--detach")
    os.utime(copy / "dvc.yaml", (1, 1))  # git's index is older than this unchanged file
    place = make_workspace(copy, 0)
    save_experiment(place, "unchanged")
    (copy / "params.yaml").write_text("seed: 5\n")
    place = make_workspace(copy, 0)
    assert (place / "params.yaml").read_text() == "seed: 5\n"
    (place / "result").write_text("good")
    save_experiment(place, "mine")
    (name, revision), (other, _) = list_experiments(copy)
    assert (name, other) == ("mine", "unchanged")
    assert read_revision(copy, revision, "result") == "good"
    assert (copy / "params.yaml").read_text() == "seed: 5\n"


def test_a_failed_command_of_git_or_dvc_is_reported_with_a_reason(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="has no git commit: run `git init` if necessary"):
        make_workspace(root.parent, 0)
    (root / "new").touch()
    run(root, "git", "add", "--intent-to-add", "new")
    with pytest.raises(InputError, match="git stash failed: Entry 'new' "):
        make_workspace(root, 0)
    (root / ".git/index.lock").touch()
    with pytest.raises(InputError, match=r"git add failed: Unable to create .*index.lock"):
        make_workspace(root, 0)

    def fail(*_: Any, env: dict[str, str], **__: Any) -> subprocess.CompletedProcess[str]:
        assert "DVC_STAGE" in env  # otherwise, the stage would go on if this process is killed
        return subprocess.CompletedProcess([], 3, stdout="", stderr=None)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(InputError, match="dvc repro failed: exit status 3"):
        run_dvc(root, "repro")


def test_experiments_run_if_they_are_missing_or_have_other_data(root: Path, fake_dvc: Any) -> None:
    data, ran = {"md5": "old"}, []

    def repro(place: Path, *stages: str) -> None:
        if stages == ("evaluate",):
            ran.append(place)
            if data["md5"] == "broken":
                raise InputError("dvc repro failed: no memory")
        deps = [{"path": "data/raw.zip", **data}, {"path": "src/phototag/base", "md5": "code"}]
        lock = {"stages": {"resize": {"deps": deps}}}
        (place / "dvc.lock").write_text(yaml.safe_dump(lock))

    fake_dvc.repro = repro
    experiments: dict[str, dict[str, Any]] = {"a": {}, "b": {}, "c": {}}
    run_experiments(root, {"a": {}})
    run_experiments(root, experiments)
    assert len(ran) == 3
    old = dict(list_experiments(root))
    assert list(old) == ["a", "b", "c"]
    data["md5"] = "new"
    run_experiments(root, {"a": {}})
    assert len(ran) == 4
    assert dict(list_experiments(root))["a"] != old["a"]
    data["md5"] = "broken"
    with pytest.raises(InputError, match="3 of 3 experiments failed; a: dvc repro failed: no mem"):
        run_experiments(root, experiments)
    assert list((root / workspaces.FOLDER).iterdir()) == []
