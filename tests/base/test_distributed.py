"""Two real processes over gloo train as one does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from phototag.base import distributed

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import json, sys
from dataclasses import asdict
from pathlib import Path
import torch
from phototag.data import dataset
from phototag.base import distributed
from phototag.training import loop
from phototag.network import model
from phototag.base.params import read_params

params = read_params(Path("params.yaml"))
packed = Path(sys.argv[1])
names = ("images.npy", "manifest.csv", "splits.csv")
found = dataset.read_datasets(*(packed / name for name in names))
distributed.join()
torch.manual_seed(0)
network = model.build_model(params.model, 3, 16, [0.5] * 3, [0.25] * 3)
model.initialize(network, params.model, torch.full((3,), 0.4))
records = [asdict(epoch) for epoch in loop.fit(network, found["train"], found["val"], params)]
if distributed.rank() == 0:
    Path("records.json").write_text(json.dumps([distributed.world_size(), records]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [8, 7])
def test_two_processes_give_the_losses_of_one(
    packed: Path, tmp_path: Path, params_values: dict[str, Any], batch_size: int
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
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "script.py").write_text(SCRIPT)
    found = []
    for launcher in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]):
        command = [sys.executable, *launcher, "script.py", str(packed)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        found.append(json.loads((tmp_path / "records.json").read_text()))
    (one, alone), (two, together) = found
    assert (one, two) == (1, 2)
    for name in ("train_loss", "val_loss", "f1_micro", "lr"):
        expected = [record[name] for record in alone]
        assert [record[name] for record in together] == pytest.approx(expected, abs=1e-5)


def train(project: Path, changes: dict[str, int], **variables: str) -> subprocess.Popen[bytes]:
    """Start the train stage, with other params."""
    values = yaml.safe_load((project / "params.yaml").read_text())
    values |= {"epochs": 4, "precision": "fp32"}
    # What is drawn within a process, or counted over its part of a batch, differs.
    values["model"] |= {"dropout": 0.0, "batch_norm": False}
    values["train"] |= changes
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-m", "stages.train"]
    return subprocess.Popen(command, cwd=project, env=environment, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_the_stage_trains_on_two_devices_and_on_two_machines(project: Path, port: int) -> None:
    alone = train(project, {})
    assert b"the first step comes" in alone.communicate()[1]
    expected = pd.read_csv(project / "reports/train/history.csv")
    assert len(expected) == 4

    found = []
    assert train(project, {"devices": 2}).wait() == 0
    found.append(pd.read_csv(project / "reports/train/history.csv"))

    machines = {"devices": 1, "num_nodes": 2}
    lost = train(project, machines)
    assert b"error: train.num_nodes is 2, but nothing says" in lost.communicate()[1]
    first = {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
    both = [train(project, machines, **first, PET_NODE_RANK=rank) for rank in ("0", "1")]
    assert [process.wait() for process in both] == [0, 0]
    found.append(pd.read_csv(project / "reports/train/history.csv"))

    for history in found:
        pd.testing.assert_frame_equal(history, expected, rtol=0, atol=1e-5)


def test_alone_a_process_has_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
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
