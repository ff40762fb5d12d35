import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from phototag.tracking.provenance import (
    describe_environment,
    has_died,
    is_of_this_machine,
    name_process,
    read_git_state,
)


def test_process_is_identified_by_host_pid_and_start() -> None:
    own = name_process()
    host, pid, started = own.rsplit(":", 2)
    assert is_of_this_machine(own)
    assert not has_died(own)
    assert has_died(f"{host}:{pid}:{int(started) - 100}")  # the pid was reused
    assert not has_died(f"{host}:{pid}:{int(started) - 2}")  # the clock was set
    ended = subprocess.run(
        [sys.executable, "-c", "from phototag.tracking.provenance import *; print(name_process())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert has_died(ended.stdout.strip())


@pytest.mark.parametrize("process", ["another-host:1:1", "", "nonsense", "a:b:c"])
def test_processes_of_other_machines_are_not_dead(process: str) -> None:
    assert not has_died(process)


def test_zombie_process_is_dead() -> None:
    ended = subprocess.Popen(["true"])
    started = psutil.Process(ended.pid).create_time()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    host = name_process().split(":")[0]
    assert has_died(f"{host}:{ended.pid}:{started:.0f}")
    ended.wait()


def run_git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t", *arguments]
    return subprocess.check_output(command, text=True).strip()


def test_git_state_has_the_commit_and_changes_of_the_project(tmp_path: Path) -> None:
    assert read_git_state(tmp_path) == {}
    (tmp_path / "project").mkdir()
    for path in ("project/file", "project/dvc.lock", "other"):
        (tmp_path / path).touch()
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        run_git(tmp_path, *arguments)
    for path in ("project/dvc.lock", "other"):
        (tmp_path / path).write_text("changed")
    assert read_git_state(tmp_path / "project") == {
        "mlflow.source.git.commit": run_git(tmp_path, "rev-parse", "HEAD"),
        "phototag.git_dirty": "false",
    }
    (tmp_path / "project/file").write_text("changed")
    assert read_git_state(tmp_path / "project")["phototag.git_dirty"] == "true"


def test_environment_lists_python_and_packages() -> None:
    python, *packages = describe_environment().splitlines()
    assert python.startswith("# Python 3.")
    assert any(line.startswith("torch==") for line in packages)
    assert packages == sorted(packages, key=str.lower)
