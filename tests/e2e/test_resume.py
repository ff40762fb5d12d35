"""The train stage, killed again and again, ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from phototag.base.files import file_digest

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 100  # of the project
KILLS = 20
OUTS = ("models/model.safetensors", "reports/train/history.csv")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def start(project: Path, experiment: str = "") -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    return subprocess.Popen(
        [sys.executable, "-m", "stages.train"],
        cwd=project,
        env=environment | {"PYTHONPATH": str(ROOT), "DVC_EXP_NAME": experiment},
        stderr=subprocess.DEVNULL,
        # Where the tests run in the background, they ignore Ctrl-C, and their children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


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


@pytest.mark.slow
def test_twenty_kills_leave_the_same_bytes_and_one_run(project: Path) -> None:
    assert start(project, "warm-up").wait() == 0
    began = time.perf_counter()
    assert start(project, "whole").wait() == 0
    whole = time.perf_counter() - began
    expected, epochs = digests(project), list(range(1, EPOCHS + 1))
    assert logged(project, "whole") == [("FINISHED", epochs)]

    rng = np.random.default_rng()
    kills, rounds, resumed = 0, 0, False
    while kills < KILLS:
        rounds += 1
        (project / OUTS[0]).unlink()
        while True:
            began = time.perf_counter()
            process = start(project, f"round-{rounds}")
            try:
                # Half a second in, it imports; later it trains, writes, and logs.
                process.wait(whole * rng.uniform(0.5, 1) if kills < KILLS else None)
            except subprocess.TimeoutExpired:
                process.send_signal(SIGNALS[kills % len(SIGNALS)])
                process.wait()
            kills += process.returncode != 0
            if process.returncode == 0 and not resumed:
                # Measured while the machine stood still, it would put every kill behind the end.
                whole = min(whole, time.perf_counter() - began)
            # A kill after the last output, while the interpreter ends, is no interruption.
            resumed = any(project.glob(".phototag/checkpoints/*.pt"))
            if process.returncode == 0 or ((project / OUTS[0]).exists() and not resumed):
                break
        assert digests(project) == expected
        assert logged(project, f"round-{rounds}") == [("FINISHED", epochs)]
    assert not list(project.glob(".phototag/checkpoints/*.pt"))


@pytest.mark.slow
def test_other_params_do_not_go_on_from_a_foreign_state(project: Path) -> None:
    process = start(project)
    states = project / ".phototag/checkpoints"
    deadline = time.monotonic() + 60
    while not list(states.glob("*.pt")) and time.monotonic() < deadline:
        assert process.poll() is None
    process.kill()
    process.wait()
    params = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(params.replace(f"epochs: {EPOCHS}", "epochs: 2"))
    assert start(project).wait() == 0
    history = (project / OUTS[1]).read_text().splitlines()
    assert len(history) == 3
    assert sorted(status for status, _ in logged(project)) == ["FINISHED", "KILLED"]
    assert len(list(states.glob("*.pt"))) == 1
