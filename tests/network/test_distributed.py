"""Two real processes over gloo train as one does."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from mlflow.tracking import MlflowClient

from phototag.base.errors import InputError
from phototag.dataset.dataset import Dataset
from phototag.network import distributed
from phototag.network.model import build_model, initialize
from phototag.schema.params import Params
from phototag.training import loop
from tests.forks import fork_stage
from tests.processes import run_together
from tests.warm import warm_python

ROOT = Path(__file__).resolve().parents[2]


def train_alike(params: Params, datasets: dict[str, Dataset]) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    network = build_model(params.model, 3, 16, [0.5] * 3, [0.25] * 3)
    initialize(network, params.model, torch.full((3,), 0.4))
    return [
        asdict(epoch) for epoch in loop.fit(network, datasets["train"], datasets["val"], params)
    ]


@pytest.mark.parametrize("batch_size", [8, 7])
def test_two_processes_give_the_losses_of_one(
    datasets: dict[str, Dataset], tmp_path: Path, params_values: dict[str, Any], batch_size: int
) -> None:
    values = params_values | {
        "lr": 0.01,
        "batch_size": batch_size,
        "epochs": 5,
        "precision": "fp32",
    }
    values["model"] |= {"conv": [{"out": 8, "kernel": 3, "pool": 2}], "linear": [16]}
    values["augment"] |= {"flip_horizontal": 0.5, "brightness": 0.3, "mixup": 0.3}
    values["train"] |= {"clip_norm": 1.0, "ema": 0.9}
    params = Params.model_validate(values)
    alone = train_alike(params, datasets)
    for together in run_together(tmp_path, train_alike, params, datasets):
        for name in ("train_loss", "val_loss", "f1_micro", "lr"):
            expected = [record[name] for record in alone]
            assert [record[name] for record in together] == pytest.approx(expected, abs=1e-5)


def train(
    project: Path,
    changes: dict[str, int],
    knobs: Mapping[str, Any] | None = None,
    variables: Mapping[str, str] | None = None,
    warm: bool = sys.platform == "linux",
) -> subprocess.Popen[str]:
    """Start the train stage, with other params."""
    set_params(project, changes, knobs)
    python = str(warm_python()) if warm else sys.executable
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(variables or {})}
    environment["PYTHON_EXEC"] = python  # which torchrun starts
    command = [python, "-m", "stages.train"]
    return subprocess.Popen(
        command,
        cwd=project,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background, they ignore Ctrl-C, and their children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def set_params(
    project: Path, changes: dict[str, int], knobs: Mapping[str, Any] | None = None
) -> None:
    values = yaml.safe_load((project / "params.yaml").read_text())
    values |= {"epochs": 4, "precision": "fp32", **(knobs or {})}
    values["model"] |= {"dropout": 0.0}  # each process draws it for its own photos
    values["train"] |= changes
    (project / "params.yaml").write_text(yaml.safe_dump(values))


@pytest.mark.slow
def test_the_stage_trains_on_two_devices_and_on_two_machines(project: Path, port: int) -> None:
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
    with pytest.raises(InputError, match=r"train.num_nodes is 2, but nothing says"):
        distributed.relaunch(1, 2)
    first = {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
    both = [train(project, machines, None, {**first, "PET_NODE_RANK": rank}) for rank in "01"]
    assert [process.wait() for process in both] == [0, 0]
    found.append(pd.read_csv(project / "reports/train/history.csv"))

    for history in found:
        pd.testing.assert_frame_equal(history, expected, rtol=0, atol=1e-5)


def members(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Wait until the stage trains in both processes, and return all that belong to it."""
    assert process.stderr is not None
    for line in process.stderr:
        if "the first step comes" in line:
            parent = psutil.Process(process.pid)
            return [parent, *parent.children(recursive=True)]
    raise AssertionError("it ended before it trained")


def statuses(project: Path) -> list[str]:
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    return [run.info.status for run in client.search_runs(["1"])]


@pytest.mark.slow
@pytest.mark.soak
def test_no_process_outlives_the_stage_and_what_it_had_goes_on(project: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = train(project, {"devices": 2}, {"epochs": 100_000}, warm=False)
        found = members(process)
        assert len(found) == 3
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
        assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
        assert "Traceback" not in told
        _, alive = psutil.wait_procs(found[1:], timeout=40)
        assert not alive
    assert statuses(project) == ["KILLED"]


@pytest.mark.slow
def test_a_users_mistake_is_one_sentence_however_many_processes_make_it(project: Path) -> None:
    process = train(project, {"devices": 2}, {"lr": 1e30, "optimizer": "sgd"})
    told = process.communicate()[1]
    assert process.returncode == 1
    assert told.count("is not finite") == 1
    assert "Traceback" not in told
    last = told.splitlines()[-1]
    assert last.startswith("error: epoch 1: the loss of step 2 is not finite; the learning")
    assert statuses(project) == ["FAILED"]


@pytest.mark.slow
def test_what_one_process_meets_ends_all_and_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(ONE_FAILS)
    command = [sys.executable, "-m", "script"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, text=True, capture_output=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (1, "sentence: mine\n")


ONE_FAILS = """
import os, sys
import torch
from phototag.network import distributed
from phototag.base.errors import InputError

def main():
    if distributed.relaunch(2, 1):
        return
    with distributed.report_failure():
        distributed.join()
        for step in range(1000):
            if step == 3 and distributed.rank() == 1:
                raise InputError('mine')
            distributed.sum_over_processes(torch.ones(1))

try:
    main()
except InputError as error:
    sys.exit(f"sentence: {error}")
"""


@pytest.mark.parametrize("names", [["RANK"], ["RANK", "WORLD_SIZE"], ["LOCAL_RANK"]])
def test_a_cluster_that_numbers_its_jobs_is_no_torchrun(
    monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    for name in distributed.LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    for name in names:
        monkeypatch.setenv(name, "3")
    assert not distributed.was_launched()
    assert distributed.join().index in (None, 0)
    assert distributed.local_processes() == 1
    for name in distributed.LAUNCHED:
        monkeypatch.setenv(name, "0")
    assert distributed.was_launched()
    assert not distributed.relaunch(2, 1)


def test_what_goes_wrong_alone_is_raised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(OSError, match="mine"), distributed.report_failure():
        raise OSError("mine")
    assert not list(tmp_path.iterdir())


def fail(folder: Path, rank: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail as one of several processes does."""
    for name in distributed.LAUNCHED:
        monkeypatch.setenv(name, str(rank))
    (folder / f"{rank}").mkdir()
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(folder / f"{rank}/error.json"))
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit, match=r"^1$"), distributed.report_failure():
        raise error


def test_the_mistake_is_told_and_not_the_loss_of_who_made_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="error: process 1 ended with -6"):
        distributed._tell(tmp_path, "process 1 ended with -6")
    fail(tmp_path, 1, OSError("a bug"), monkeypatch)
    fail(tmp_path, 0, RuntimeError("connection closed"), monkeypatch)
    os.utime(tmp_path / "1/error.json", (0, 0))
    with pytest.raises(SystemExit, match=r"(?s)^Traceback .*OSError: a bug\n$"):
        distributed._tell(tmp_path, "")
    fail(tmp_path, 2, InputError("mine, é"), monkeypatch)
    with pytest.raises(InputError, match=r"^mine, é$"):
        distributed._tell(tmp_path, "")


def share_first() -> list[Any]:
    """Return what the processes hold after each agreed with the first."""
    rank, tensor = distributed.rank(), torch.full((2,), float(distributed.rank()))
    distributed.copy_first([tensor])
    found = [distributed.from_first(lambda: f"of {rank}"), tensor.tolist()]
    try:
        distributed.from_first(fail_in_the_first)
    except InputError as error:
        found.append(str(error))
    try:
        distributed.check_same(rank, "ranks")
    except InputError as error:
        found.append(str(error))
    return found


def fail_in_the_first() -> None:
    assert distributed.rank() == 0
    raise InputError("mine")


def test_what_the_first_finds_is_alls(tmp_path: Path) -> None:
    first, second = run_together(tmp_path, share_first)
    assert first == second
    assert first[:3] == ["of 0", [0.0, 0.0], "mine"]
    assert first[3].startswith("the machines have different ranks: ")


def test_alone_a_process_has_everything() -> None:
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.own_share(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
    assert distributed.gather_rows(np.arange(5)).tolist() == [0, 1, 2, 3, 4]
    assert not distributed.relaunch(1, 1)


@pytest.mark.parametrize("count", [1, 7, 8])
def test_shares_cover_a_batch_once(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    shares = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        shares.append(distributed.own_share(np.arange(count)))
    assert np.concatenate(shares).tolist() == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
