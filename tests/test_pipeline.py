"""The real pipeline in a real git repository, with a few drawn photos."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient

ROOT = Path(__file__).parents[1]
Run = Callable[..., str]
pytestmark = pytest.mark.slow


def make_project(folder: Path) -> Run:
    """Copy the working tree into a git repository of its own, with small params."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True
    )
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment |= {f"GIT_{role}_{what}": "test" for role in ("AUTHOR", "COMMITTER")
                    for what in ("NAME", "EMAIL")}  # fmt: skip
    environment["DVC_NO_ANALYTICS"] = "1"

    def run(*command: str, **extra: str) -> str:
        done = subprocess.run(
            command, cwd=folder, env=environment | extra, text=True, capture_output=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    params = (folder / "params.yaml").read_text()
    values = yaml.safe_load(params)
    for key, value in (("epochs", 1), ("num_images", 90)):
        old = values.get(key, values["sample"].get(key))
        params = params.replace(f"{key}: {old}", f"{key}: {value}")
    (folder / "params.yaml").write_text(params)
    for command in (["git", "init", "-q", "-b", "main"], ["git", "add", "-A"],
                    ["git", "commit", "-q", "-m", "start"]):  # fmt: skip
        run(*command)
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def project(folder: Path) -> Run:
    """A project after its first `dvc repro`, committed."""
    run = make_project(folder)
    run("dvc", "repro")
    run("git", "add", "-A")
    run("git", "commit", "-q", "-m", "results")
    return run


def changed_stages(run: Run) -> set[str]:
    return set(json.loads(run("dvc", "status", "--json")))


def runs(folder: Path) -> dict[str, object]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("phototag")
    assert experiment
    found = client.search_runs([experiment.experiment_id])
    return {run.info.run_name: run for run in found}


def test_repro_ends_with_a_registered_champion(project: Run, folder: Path) -> None:
    decision = json.loads((folder / "reports/register.json").read_text())
    assert decision["champion"]
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    version = client.get_model_version_by_alias("phototag", "champion")
    scores = json.loads((folder / "reports/evaluate/metrics.json").read_text())
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_f1_micro"] == pytest.approx(scores["f1_micro"])
    history = client.get_metric_history(version.run_id, "val_loss")
    recorded = pd.read_csv(folder / "reports/train/history.csv")
    assert [m.value for m in history] == pytest.approx(recorded["val_loss"].tolist())
    assert (folder / "reports/evaluate/report.html").stat().st_size > 50_000
    assert run.info.artifact_uri.startswith(f"file://{folder}/mlartifacts")


def test_second_repro_does_nothing(project: Run) -> None:
    out = project("dvc", "repro")
    assert "Running stage" not in out
    assert changed_stages(project) == set()


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("src/phototag/model.py", {"train", "evaluate", "register"}),
        ("src/phototag/report.py", {"evaluate"}),
        ("src/phototag/registry.py", {"register"}),
        ("src/phototag/cli.py", set()),
    ],
)
def test_a_changed_comment_reruns_what_runs_it(
    project: Run, folder: Path, file: str, stages: set[str]
) -> None:
    before = (folder / file).read_text()
    (folder / file).write_text(before + "\n# a comment\n")
    try:
        assert changed_stages(project) == stages
    finally:
        (folder / file).write_text(before)


def test_evaluate_params_rerun_evaluate_and_register_only(project: Run, folder: Path) -> None:
    before = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(before.replace("min_positives: 10", "min_positives: 2"))
    try:
        out = project("dvc", "repro")
        ran = [line.split("'")[1] for line in out.splitlines() if line.startswith("Running")]
        # Where the other params give the same thresholds, there is nothing new to register.
        assert ran in (["evaluate"], ["evaluate", "register"])
    finally:
        project("git", "checkout", "-q", ".")
        project("dvc", "checkout", "-q")


def test_forced_repro_gives_the_same_bytes(project: Run, folder: Path) -> None:
    def digests() -> dict[str, str]:
        lock = yaml.safe_load((folder / "dvc.lock").read_text())
        return {out["path"]: out["md5"] for s in lock["stages"].values() for out in s["outs"]}

    before = digests()
    project("dvc", "repro", "--force")
    after = digests()
    assert {path for path in before if before[path] != after[path]} <= {"reports/register.json"}


def test_experiments_run_their_own_snapshot_and_keep_their_artifacts(
    project: Run, folder: Path
) -> None:
    source = folder / "src/phototag/evaluation.py"
    before = source.read_text()
    project("dvc", "exp", "run", "--queue", "-n", "tiny-lr", "-S", "lr=0.00001")
    source.write_text("raise RuntimeError('the workspace, not the snapshot')\n")
    try:
        project("dvc", "exp", "run", "--run-all")
    finally:
        source.write_text(before)

    run = runs(folder)["tiny-lr"]
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    assert run.info.status == "FINISHED"  # type: ignore[attr-defined]
    assert float(run.data.params["lr"]) == 1e-5  # type: ignore[attr-defined]
    names = {artifact.path for artifact in client.list_artifacts(run.info.run_id, "evaluate")}  # type: ignore[attr-defined]
    assert "evaluate/report.html" in names
    shown = pd.read_csv(_csv(folder, project("dvc", "exp", "show", "--csv")))
    row = shown[shown["Experiment"] == "tiny-lr"].iloc[0]
    assert row["loss"] == pytest.approx(run.data.metrics["test_loss"])  # type: ignore[attr-defined]


def test_sync_gives_a_cached_experiment_its_run(project: Run, folder: Path) -> None:
    project("dvc", "exp", "run", "--temp", "-n", "as-before")
    assert "as-before" not in runs(folder)
    assert "1 experiments added to MLflow: as-before" in project("phototag", "sync")
    run = runs(folder)["as-before"]
    assert "test_f1_micro" in run.data.metrics  # type: ignore[attr-defined]
    assert "0 experiments added" in project("phototag", "sync")


def _csv(folder: Path, text: str) -> Path:
    path = folder.parent / "shown.csv"
    path.write_text(text)
    return path
