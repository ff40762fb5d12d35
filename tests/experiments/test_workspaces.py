"""Copies of a repository that git and DVC really track."""

import shutil
import subprocess
from pathlib import Path

import pytest

from phototag.base.errors import InputError
from phototag.experiments.workspaces import make_workspace, remove_workspaces

pytestmark = pytest.mark.slow
STAGES = """stages:
  normalize-stats: {cmd: wc -c < data/own/a > stats, deps: [data/own], outs: [stats]}
  embed: {cmd: touch features, outs: [features]}
"""


def run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a folder of photos that nobody tracks yet."""
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


def test_a_workspace_has_the_users_own_photos(root: Path) -> None:
    with pytest.raises(InputError, match=r"knows neither data/own nor data/own.dvc.*`dvc add data"):
        make_workspace(root, "1-0")
    run(root, "dvc", "add", "--quiet", "data/own")
    run(root, "git", "add", "data/own.dvc")
    with pytest.raises(InputError, match=r"would take data/own .* `git add data/.gitignore`"):
        make_workspace(root, "1-0")
    run(root, "git", "add", "data/.gitignore")  # no commit is needed
    place = make_workspace(root, "1-0")
    assert (place / "data/own/a").read_text() == "photo"
    assert not (place / "stats").exists()  # nothing made it yet
    run(root, "dvc", "repro", "--quiet")
    run(root, "git", "add", "dvc.lock")
    place = make_workspace(root, "1-1")
    assert (place / "stats").read_text().strip() == "5"
    remove_workspaces(root, "1-")
    assert not list((root / ".dvc/tmp/workspaces").iterdir())

    shutil.rmtree(root / ".dvc/cache")
    with pytest.raises(InputError, match=r"cache does not have data/own: .*`dvc commit data/own"):
        make_workspace(root, "1-0")
    (root / "params.yaml").write_text("data: {raw: ../own}\n")
    with pytest.raises(InputError, match=r"\.\./own is outside .*: write its whole path"):
        make_workspace(root, "1-0")
