"""Unattended retraining in a git repository, with substitutes for `phototag` and `dvc`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from phototag.base.errors import InputError
from tools import retrain

DECISION = {
    "name": "photos",
    "version": 2,
    "champion": False,
    "reason": "micro F1 0.5 does not clearly beat 0.6",
    "notes": ["9 test photos were compared"],
}
ADVICE = "to replace it, run `phototag promote 2 --new-labels`"


class Repository:
    """A project in which importing and training append lines to the files that git tracks."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.programs = folder / "project", folder / "programs"
        for place in ("data", "reports/register"):
            (self.folder / place).mkdir(parents=True)
        self.programs.mkdir()
        monkeypatch.setenv("DVC_ROOT", str(self.folder))
        monkeypatch.setattr(sys, "executable", str(self.programs / "python"))
        for role in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{role}_NAME", "t")
            monkeypatch.setenv(f"GIT_{role}_EMAIL", "t@t")
        self.program("phototag", 'echo "$*"; cat "$2" >>data/raw.dvc\n')
        self.program("dvc", '[ "$1" = add ] || cat data/raw.dvc >dvc.lock\n')
        files = ("params.yaml", "dvc.lock", "data/raw.dvc", "data/.gitignore")
        for name in files:
            (self.folder / name).write_text("")
        (self.folder / ".gitignore").write_text("/.phototag/\n/reports/\n")
        self.decide()
        self.git("init", "-q")
        self.git("add", "-A")
        self.git("commit", "-qm", "start")

    def program(self, name: str, script: str) -> None:
        (self.programs / name).write_text(f"#!/bin/sh\n{script}")
        (self.programs / name).chmod(0o755)

    def decide(self, **changes: object) -> None:
        file = self.folder / "reports/register/decision.json"
        file.write_text(json.dumps(DECISION | changes))

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.folder), *arguments]
        return subprocess.check_output(command, text=True).strip()

    def __call__(self, photos: str, *options: str) -> None:
        source = self.folder.parent / "incoming"
        source.write_text(photos)
        retrain.main([str(source), *options])


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    return Repository(tmp_path, monkeypatch)


def test_new_photos_are_committed_with_their_results(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository("one\n", "--folder", "unsorted=unknown")
    assert repository.git("log", "--format=%s").splitlines() == ["Retrain", "Add photos", "start"]
    assert repository.git("show", "HEAD:dvc.lock") == "one"
    assert repository.git("status", "--porcelain") == ""
    log = (repository.folder / ".phototag/retrain.log").read_text()
    assert "import" in log
    assert "--folder unsorted=unknown --add" in log
    repository("")  # nothing to add
    assert len(repository.git("log", "--format=%s").splitlines()) == 3
    assert capsys.readouterr() == ("", "")


def test_a_failed_step_is_reported_and_repeated(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = "echo half >dvc.lock; echo no disk >&2; exit 3"
    repository.program("dvc", f'[ "$1" = add ] || {{ {failing}; }}\n')
    with pytest.raises(InputError, match=r"dvc repro failed in .*: see above, and .*retrain\.log"):
        repository("one\n")
    assert capsys.readouterr().err.splitlines()[-1] == "no disk"
    assert repository.git("log", "--format=%s").splitlines() == ["Add photos", "start"]
    # The results of the stages that succeeded are no obstacle.
    repository.program("dvc", '[ "$1" = add ] || cat data/raw.dvc >dvc.lock\n')
    repository("two\n")
    assert repository.git("show", "HEAD:dvc.lock") == "one\ntwo"
    # The commit of the photos has no part of the results.
    assert repository.git("show", "HEAD^:dvc.lock") == ""
    assert capsys.readouterr().out == ""


def test_only_a_decision_that_needs_a_user_is_printed(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    repository.decide(champion=True)
    repository("one\n")
    assert capsys.readouterr().out == ""
    repository.decide(reason="version 1 cannot be compared", notes=[ADVICE])
    repository("two\n")
    assert capsys.readouterr().out == (
        f"Registered: photos version 2, challenger (version 1 cannot be compared)\n  {ADVICE}\n"
    )


def test_uncommitted_changes_of_a_user_are_refused(repository: Repository) -> None:
    (repository.folder / "params.yaml").write_text("lr: 1\n")
    with pytest.raises(InputError, match=r"changes in .*: commit or discard params\.yaml$"):
        repository("one\n")
    assert repository.git("diff", "--name-only") == "params.yaml"


def test_a_second_run_ends_at_once_without_output(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = repository.folder / ".phototag"
    folder.mkdir()
    with FileLock(folder / "retrain.lock"), pytest.raises(SystemExit) as ended:
        repository("one\n")
    assert ended.value.code == retrain.BUSY
    assert capsys.readouterr() == ("", "")
    assert repository.git("status", "--porcelain") == ""
