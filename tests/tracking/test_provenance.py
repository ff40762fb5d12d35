import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from phototag.tracking.provenance import (
    describe_environment,
    has_died,
    name_machine,
    name_process,
    read_git_state,
)


def test_a_process_is_known_by_host_number_and_start() -> None:
    own = name_process()
    host, number, started = own.rsplit(":", 2)
    assert not has_died(own)
    assert has_died(f"{host}:{number}:{int(started) - 100}")  # another process had the number
    assert not has_died(f"{host}:{number}:{int(started) - 2}")  # the clock was set right
    ended = subprocess.run(
        [sys.executable, "-c", "from phototag.tracking.provenance import *; print(name_process())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert has_died(ended.stdout.strip())


@pytest.mark.parametrize("process", ["another-host:1:1", "", "nonsense", "a:b:c"])
def test_of_processes_elsewhere_nothing_is_said(process: str) -> None:
    assert not has_died(process)


def test_a_process_that_nobody_waited_for_is_dead() -> None:
    ended = subprocess.Popen(["true"])
    started = psutil.Process(ended.pid).create_time()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert has_died(f"{name_machine()}:{ended.pid}:{started:.0f}")
    ended.wait()


def test_machines_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    before = name_machine()
    monkeypatch.setattr(Path, "read_text", lambda path: "another machine's id")
    assert name_machine() != before
    assert name_machine().rpartition("-")[0] == before.rpartition("-")[0]


def test_git_state_of_a_project_in_a_larger_repository(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t"]
    (tmp_path / "project").mkdir()
    for path in ("project/file", "other"):
        (tmp_path / path).touch()
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True)
    (tmp_path / "other").write_text("changed")
    assert read_git_state(tmp_path / "project")["phototag.git_dirty"] == "false"
    (tmp_path / "project/file").write_text("changed")
    assert read_git_state(tmp_path / "project")["phototag.git_dirty"] == "true"


def test_git_state(tmp_path: Path) -> None:
    assert read_git_state(tmp_path) == {}

    def git(*arguments: str) -> str:
        names = ["-c", "user.name=t", "-c", "user.email=t"]
        command = ["git", "-C", str(tmp_path), *names, *arguments]
        return subprocess.check_output(command, text=True).strip()

    git("init", "-q")
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    assert read_git_state(tmp_path) == {
        "mlflow.source.git.commit": commit,
        "phototag.git_dirty": "false",
    }
    (tmp_path / "file").write_text("b")
    assert read_git_state(tmp_path)["phototag.git_dirty"] == "true"


def test_environment_names_python_and_packages() -> None:
    lines = describe_environment().splitlines()
    assert lines[0].startswith("# Python 3.")
    assert "CPU cores" in lines[1]
    assert any(line.startswith("torch==") for line in lines)
    assert lines[2:] == sorted(lines[2:], key=str.lower)
