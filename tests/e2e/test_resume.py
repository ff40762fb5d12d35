"""The train stage, killed again and again, ends as if nothing had happened."""

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow.tracking import MlflowClient

from phototag.base.files import file_digest
from tests.forks import fork_stage

OUTS = ("models/model.safetensors", "reports/train/history.csv")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
pytestmark = pytest.mark.slow
EPOCHS = 24


def shorten(project: Path, epochs: int) -> None:
    values = yaml.safe_load((project / "params.yaml").read_text())
    (project / "params.yaml").write_text(yaml.safe_dump(values | {"epochs": epochs}))


def digests(project: Path) -> list[str]:
    return [file_digest(project / name) for name in OUTS]


def logged(project: Path, experiment: str = "") -> list[tuple[str, list[int]]]:
    """Return the status of each of the experiment's runs, and the epochs logged in it."""
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    runs = client.search_runs(["1"], f"tags.`phototag.dvc_experiment` = '{experiment}'")
    return [
        (run.info.status, [m.step for m in client.get_metric_history(run.info.run_id, "val_loss")])
        for run in runs
    ]


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_kills_leave_the_same_bytes_and_one_run(
    project: Path, empty_database: Path, kills: int
) -> None:
    shutil.copy(empty_database, project)
    shorten(project, EPOCHS)

    def start(experiment: str, patience: float | None) -> tuple[int, float]:
        """Train until it ends or patience does, and return the exit code and the seconds."""
        began = time.perf_counter()
        process = fork_stage("train", project, {"DVC_EXP_NAME": experiment})
        process.join(patience)
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, SIGNALS[killed % len(SIGNALS)])
            process.join(120)
            assert not process.is_alive(), "it does not end"
        assert process.exitcode is not None
        return process.exitcode, time.perf_counter() - began

    killed, rounds = 0, 0
    assert start("warm-up", None)[0] == 0
    code, whole = start("whole", None)
    assert code == 0
    expected, epochs = digests(project), list(range(1, EPOCHS + 1))
    assert logged(project, "whole") == [("FINISHED", epochs)]

    rng = np.random.default_rng()
    while killed < kills:
        rounds += 1
        (project / OUTS[0]).unlink()
        resumed = False
        while True:
            patience = whole * rng.uniform(0, 1) if killed < kills else None
            code, seconds = start(f"round-{rounds}", patience)
            killed += code != 0
            if code == 0 and not resumed:
                # Measured while the machine stood still, it would put every kill behind the end.
                whole = min(whole, seconds)
            # A kill after the last output, while the process ends, is no interruption.
            resumed = any(project.glob(".phototag/checkpoints/*.pt"))
            if code == 0 or ((project / OUTS[0]).exists() and not resumed):
                break
        assert digests(project) == expected
        assert logged(project, f"round-{rounds}") == [("FINISHED", epochs)]
    assert not list(project.glob(".phototag/checkpoints/*.pt"))


def test_other_params_do_not_go_on_from_a_foreign_state(
    project: Path, empty_database: Path
) -> None:
    shutil.copy(empty_database, project)
    process = fork_stage("train", project, {})
    states = project / ".phototag/checkpoints"
    while not list(states.glob("*.pt")):
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    shorten(project, 2)
    process = fork_stage("train", project, {})
    process.join()
    assert process.exitcode == 0
    history = (project / OUTS[1]).read_text().splitlines()
    assert len(history) == 3
    assert sorted(status for status, _ in logged(project)) == ["FINISHED", "KILLED"]
    assert len(list(states.glob("*.pt"))) == 1
