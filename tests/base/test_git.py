import subprocess
from pathlib import Path

import pytest

from phototag.base.errors import InputError
from phototag.base.git import ask_git, run_git


def test_output_is_returned_without_white_space(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "-b", "trunk", str(tmp_path)], check=True)
    assert run_git(tmp_path, "branch", "--show-current") == "trunk"


def test_failure_is_reported_with_the_reason_of_git(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    with pytest.raises(InputError, match=r"^git show failed: .*nothing"):
        run_git(tmp_path, "show", "nothing")
    assert ask_git(tmp_path, "show", "nothing") is None


def test_folder_outside_git_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^git status failed: not a git repository"):
        run_git(tmp_path, "status")


def test_missing_git_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="git is not installed"):
        run_git(tmp_path, "status")
