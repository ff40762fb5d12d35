"""Workspaces of a repository with git and DVC."""

import shutil
import subprocess
from pathlib import Path

import pytest

from phototag.base.errors import InputError
from phototag.experiments.workspaces import make_workspace

pytestmark = pytest.mark.slow
STAGES = """stages:
  normalize-stats: {cmd: wc -c < data/own/a > stats, deps: [data/own], outs: [stats]}
  embed: {cmd: touch features, outs: [features]}
"""


def run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a folder of photos that neither git nor DVC tracks."""
    (tmp_path / "data/own").mkdir(parents=True)
    (tmp_path / "data/own/a").write_text("photo")
    (tmp_path / "dvc.yaml").write_text(STAGES)
    (tmp_path / "params.yaml").write_text("data: {raw: data/own}\n")
    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "git", "config", "user.name", "ann")
    run(tmp_path, "git", "config", "user.email", "ann@example.org")
    run(tmp_path, "dvc", "init", "--quiet")
    run(tmp_path, "git", "add", ".dvc", "dvc.yaml", "params.yaml")
    run(tmp_path, "git", "commit", "--quiet", "-m", "first")
    return tmp_path


def test_make_workspace_restores_the_users_photos(root: Path) -> None:
    untracked = (
        r"cannot get data/own .* `dvc add data/own` and `git add data/own.dvc data/.gitignore"
    )
    with pytest.raises(InputError, match=untracked):
        make_workspace(root, "1-0")
    run(root, "dvc", "add", "--quiet", "data/own")
    run(root, "git", "add", "data/own.dvc")
    with pytest.raises(InputError, match=untracked):  # git does not ignore the photos
        make_workspace(root, "1-0")
    run(root, "git", "add", "data/.gitignore")  # staged files are copied without a commit
    place = make_workspace(root, "1-0")
    assert (place / "data/own/a").read_text() == "photo"
    assert not (place / "stats").exists()  # no stage has run
    run(root, "dvc", "repro", "--quiet")
    run(root, "git", "add", "dvc.lock")
    place = make_workspace(root, "1-1")
    assert (place / "stats").read_text().strip() == "5"

    shutil.rmtree(root / ".dvc/cache")
    with pytest.raises(InputError, match=r"cannot get data/own from DVC's cache"):
        make_workspace(root, "1-0")
    (root / "params.yaml").write_text("data: {raw: ../own}\n")
    with pytest.raises(InputError, match=r"\.\./own .* set data.raw to an absolute path"):
        make_workspace(root, "1-0")
