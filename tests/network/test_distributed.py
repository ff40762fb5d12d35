"""Training in two processes over gloo."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from mlflow.tracking import MlflowClient
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from phototag.base.errors import InputError
from phototag.network import distributed
from tests.forks import fork_stage
from tests.processes import run_together
from tests.warm import warm_python

ROOT = Path(__file__).resolve().parents[2]


def train(
    project: Path,
    changes: dict[str, int],
    params: Mapping[str, Any] | None = None,
    variables: Mapping[str, str] | None = None,
    warm: bool = sys.platform == "linux",
) -> subprocess.Popen[str]:
    """Start the train stage with other params."""
    set_params(project, changes, params)
    python = str(warm_python()) if warm else sys.executable
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(variables or {})}
    environment["PYTHON_EXEC"] = python  # the interpreter that torchrun starts
    command = [python, "-m", "stages.train"]
    return subprocess.Popen(
        command,
        cwd=project,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # Background jobs ignore Ctrl-C, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def set_params(
    project: Path, changes: dict[str, int], params: Mapping[str, Any] | None = None
) -> None:
    values = yaml.safe_load((project / "params.yaml").read_text())
    values |= {"epochs": 4, "precision": "fp32", **(params or {})}
    # Each process draws dropout for its own photos, and on CPUs has its own batch statistics.
    values["model"] |= {"dropout": 0.0, "batch_norm": False}
    values["train"] |= changes
    (project / "params.yaml").write_text(yaml.safe_dump(values))


@pytest.mark.slow
def test_stage_trains_on_two_devices_and_on_two_machines(project: Path, port: int) -> None:
    set_params(project, {})
    alone = fork_stage("train", project, {})
    alone.join()
    assert alone.exitcode == 0
    expected = pd.read_csv(project / "reports/train/history.csv")
    assert len(expected) == 4

    found = []
    assert train(project, {"devices": 2}).wait() == 0
    found.append(pd.read_csv(project / "reports/train/history.csv"))

    machines = {"devices": 1, "num_nodes": 2}
    with pytest.raises(InputError, match=r"train.num_nodes is 2, but PET_MASTER_ADDR is not set"):
        distributed.launch(1, 2)
    first = {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
    both = [train(project, machines, None, {**first, "PET_NODE_RANK": rank}) for rank in "01"]
    assert [process.wait() for process in both] == [0, 0]
    found.append(pd.read_csv(project / "reports/train/history.csv"))

    for history in found:
        pd.testing.assert_frame_equal(history, expected, rtol=0, atol=1e-5)


def wait_for_training(project: Path, process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Wait until the first epoch has ended, and return all processes of the stage."""
    while not list(project.glob(".phototag/checkpoints/*.pt")):
        assert process.poll() is None, "the stage ended before it trained"
        time.sleep(0.05)
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]


@pytest.mark.slow
@pytest.mark.soak
def test_signal_ends_all_processes_and_the_run_is_killed(project: Path) -> None:
    process = train(project, {"devices": 2}, {"epochs": 100_000}, warm=False)
    found = wait_for_training(project, process)
    assert len(found) == 3
    process.send_signal(signal.SIGTERM)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in printed
    _, alive = psutil.wait_procs(found[1:], timeout=40)
    assert not alive
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    assert [run.info.status for run in client.search_runs(["1"])] == ["KILLED"]


@pytest.mark.slow
def test_input_error_of_all_processes_is_printed_once(project: Path) -> None:
    process = train(project, {"devices": 2}, {"lr": 1e30, "optimizer": "sgd"})
    printed = process.communicate()[1]
    assert process.returncode == 1
    assert printed.count("is not finite") == 1
    assert "Traceback" not in printed
    assert printed.splitlines()[-1].startswith("error: epoch 1: the loss at step")


@pytest.mark.parametrize("names", [["RANK"], ["RANK", "WORLD_SIZE"], ["LOCAL_RANK"]])
def test_single_variables_of_a_cluster_are_not_torchrun(
    monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    for name in distributed.TORCHRUN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in names:
        monkeypatch.setenv(name, "3")
    assert not distributed.was_launched()
    assert distributed.join().index in (None, 0)
    for name in distributed.TORCHRUN_VARIABLES:
        monkeypatch.setenv(name, "0")
    assert distributed.was_launched()
    assert not distributed.launch(2, 1)


def test_input_error_is_recorded_for_the_starting_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in distributed.TORCHRUN_VARIABLES:
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit, match=r"^1$"), distributed.report_failure():
        raise InputError("mine, é")
    lost = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file="<N/A>")
    recorded = ProcessFailure(1, 2, 1, str(tmp_path / "error.json"))
    failed = ChildFailedError("train", {0: lost, 1: recorded})
    assert distributed._describe_failure(failed) == "error: mine, é"
    failed = ChildFailedError("train", {0: lost})
    assert distributed._describe_failure(failed) == "error: process 0 ended with exit code 1"


def exchange_values() -> list[Any]:
    """Return what the processes hold after exchanging values with the first one."""
    rank, tensor = distributed.rank(), torch.full((2,), float(distributed.rank()))
    distributed.broadcast_tensors([tensor])
    found = [distributed.run_on_first(lambda: f"of {rank}"), tensor.tolist()]
    try:
        distributed.run_on_first(fail_on_first)
    except InputError as error:
        found.append(str(error))
    return found


def fail_on_first() -> None:
    assert distributed.rank() == 0
    raise InputError("mine")


def test_values_of_the_first_process_are_those_of_all(tmp_path: Path) -> None:
    first, second = run_together(tmp_path, exchange_values)
    assert first == second == ["of 0", [0.0, 0.0], "mine"]


@pytest.mark.parametrize("count", [1, 7, 8])
def test_shares_cover_a_batch_once(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(distributed.local_share(np.arange(count)))
    assert np.concatenate(shares).tolist() == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
