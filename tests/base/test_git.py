import subprocess
from pathlib import Path

import pytest

from phototag.base.errors import InputError
from phototag.base.git import ask_git, describe_commit, run_git


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


def test_commit_is_the_last_one_that_changed_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert describe_commit(tmp_path) == "", "outside a repository"
    run_git(tmp_path, "init", "-q")
    assert describe_commit(tmp_path) == "", "without a commit"
    for key, value in (("user.name", "me"), ("user.email", "me@localhost")):
        run_git(tmp_path, "config", key, value)
    params, results = tmp_path / "params.yaml", tmp_path / "reports/metrics.json"
    results.parent.mkdir()

    def commit(hour: int) -> str:
        monkeypatch.setenv("GIT_COMMITTER_DATE", f"2026-03-04T{hour:02}:06:07+02:00")
        run_git(tmp_path, "add", ".")
        run_git(tmp_path, "commit", "-q", "-m", "change")
        return run_git(tmp_path, "rev-parse", "HEAD")

    params.write_text("seed: 0")
    first = f"{commit(5)[:8]} of 2026-03-04 03:06 UTC"
    assert describe_commit(tmp_path) == first
    for text in ("{}", "[]"):  # new results, first uncommitted and then committed
        results.write_text(text)
        assert describe_commit(tmp_path) == first
        commit(7)
        assert describe_commit(tmp_path) == first
    params.write_text("seed: 1")
    assert describe_commit(tmp_path) == f"{first}, with uncommitted changes"
    second = f"{commit(9)[:8]} of 2026-03-04 07:06 UTC"
    assert describe_commit(tmp_path) == second
