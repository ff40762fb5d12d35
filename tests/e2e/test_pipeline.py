"""The pipeline in a git repository, with few synthetic images."""

import io
import json
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from playwright.sync_api import Browser

from phototag.base.files import file_digest
from tests.pages.layout import check_layout
from tests.projects import Project

pytestmark = pytest.mark.slow


@pytest.fixture
def project(trained: Project) -> Project:
    return trained


@pytest.fixture
def folder(trained: Project) -> Path:
    return trained.folder


def changed_stages(project: Project) -> set[str]:
    return set(json.loads(project("dvc", "status", "--json")))


def runs(folder: Path) -> dict[str, Run]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(folder.name)
    assert experiment
    found = client.search_runs([experiment.experiment_id])
    return {run.info.run_name: run for run in found}


def test_repro_ends_with_a_registered_champion(project: Project, folder: Path) -> None:
    decision = json.loads((folder / "reports/register/decision.json").read_text())
    assert decision["champion"]
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    version = client.get_model_version_by_alias(folder.name, "champion")
    scores = json.loads((folder / "reports/evaluate/metrics.json").read_text())
    run = client.get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_f1_micro"] == pytest.approx(scores["f1_micro"])
    history = client.get_metric_history(version.run_id, "val_loss")
    recorded = pd.read_csv(folder / "reports/train/history.csv")
    assert [m.value for m in history] == pytest.approx(recorded["val_loss"].tolist())
    assert (folder / "reports/evaluate/report.html").stat().st_size > 50_000
    assert run.info.artifact_uri.startswith(f"file://{folder}/mlartifacts")
    # The version lists the photos and groups of train and val.
    (listed,) = (folder / "mlartifacts").rglob(f"{Path(version.source).name}/**/photos.txt")
    kept = pd.read_csv(folder / "data/manifest.csv").query("decision != 'rejected'")
    splits = pd.read_csv(folder / "data/splits.csv", dtype=str)
    used = (splits["split"] != "test").to_numpy()
    ids = {*kept["sha256"].str[:16][used], *splits["group"][used]}
    assert listed.read_text().split() == sorted(ids)


def test_second_repro_does_nothing(project: Project) -> None:
    out = project("dvc", "repro")
    assert "Running stage" not in out
    assert changed_stages(project) == set()


AFTER_NETWORK = {"embed", "train", "evaluate", "register"}
AFTER_DECODING = {"resize", "register"}
RERUNS: dict[str, set[str]] = {
    "synthetic/scene.py": {"sample"},
    "decoding/photos.py": AFTER_DECODING,
    "verification/duplicates.py": {"resize"},
    "splitting/splits.py": {"split"},
    "network/model.py": AFTER_NETWORK,
    "training/params.py": {"train"},
    "evaluation/thresholds.py": {"evaluate", "register"},
    "serving/tagger.py": {"register"},
    "registry/params.py": {"register"},
    "importers/coco.py": set(),
    "review/page.py": set(),
    "schema/params.py": set(),
}


@pytest.mark.parametrize(("file", "stages"), RERUNS.items())
def test_changed_package_reruns_the_stages_that_use_it(
    project: Project, folder: Path, file: str, stages: set[str]
) -> None:
    path = folder / "src/phototag" / file
    before = path.read_text()
    path.write_text(before + "\n# a comment\n")
    try:
        assert changed_stages(project) == stages
    finally:
        path.write_text(before)


def test_new_augmentation_key_reruns_train_only(project: Project, folder: Path) -> None:
    """A param is added to the schema of its package and to params.yaml."""
    schema, params = folder / "src/phototag/training/params.py", folder / "params.yaml"
    before = schema.read_text(), params.read_text()
    schema.write_text(before[0].replace("    mixup:", "    cutout: Share\n    mixup:", 1))
    params.write_text(before[1].replace("  mixup: 0", "  cutout: 0\n  mixup: 0", 1))
    try:
        assert changed_stages(project) == {"train"}
        project("python", "-m", "stages.split")  # the checks accept the new key
    finally:
        schema.write_text(before[0])
        params.write_text(before[1])


@pytest.mark.parametrize(
    ("old", "new", "stages"),
    [
        ("recipe: report", "recipe: pretrained", {"evaluate"}),  # the report shows it
        ("  name: null", "  name: holiday", {"register"}),
    ],
)
def test_names_rerun_no_training(
    project: Project, folder: Path, old: str, new: str, stages: set[str]
) -> None:
    params = folder / "params.yaml"
    before = params.read_text()
    assert before.count(old) == 1
    params.write_text(before.replace(old, new))
    try:
        assert changed_stages(project) == stages
    finally:
        params.write_text(before)


def test_another_photo_size_repacks_the_photos(results: Project, tmp_path: Path) -> None:
    project = results.clone(tmp_path / "clone", cache=True)
    params, images = project.folder / "params.yaml", project.folder / "data/images.npy"
    start = params.read_text()
    packed = images.read_bytes()
    params.write_text(start.replace(f"size: {np.load(images).shape[1]}", "size: 96"))
    assert "Running stage 'resize'" in project("dvc", "repro", "resize")
    assert np.load(images).shape[1:] == (96, 96, 3)
    params.write_text(start)
    project("dvc", "repro", "resize")  # restored from the cache
    assert images.read_bytes() == packed


def test_evaluate_params_rerun_evaluate_and_register_only(experiments: dict[str, str]) -> None:
    lines = experiments["pooled"].splitlines()
    ran = [line.split("'")[1] for line in lines if line.startswith("Running stage")]
    # If the thresholds and predictions stay the same, the later stages have nothing to do.
    assert ran[0] == "evaluate"
    assert {*ran[1:]} <= {"reference", "register"}


@pytest.mark.parametrize("warm", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_forced_repro_writes_the_same_bytes(folder: Path, warm: bool) -> None:
    def digests() -> dict[str, str]:
        lock = yaml.safe_load((folder / "dvc.lock").read_text())
        return {out["path"]: out["md5"] for s in lock["stages"].values() for out in s["outs"]}

    before = digests()
    Project(folder, warm)("dvc", "repro", "--force")
    after = digests()
    assert {path for path in before if before[path] != after[path]} <= {"reports/register"}


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("stage", ["resize", "evaluate", "register"])
def test_pages_fit_a_phone_and_a_desktop(
    folder: Path, browser: Browser, stage: str, width: int
) -> None:
    check_layout(browser, folder / "reports" / stage / "report.html", width)


@pytest.mark.soak
def test_killed_resize_leaves_no_partial_output(project: Project, folder: Path) -> None:
    kills = 8
    outs = ["data/images.npy", "data/manifest.csv"]
    before = {name: file_digest(folder / name) for name in outs}
    cold = Project(folder, warm=False)  # its stages are in the same process group
    rng, killed, whole = np.random.default_rng(), 0, float("inf")
    while killed < kills:
        start = time.perf_counter()
        process = cold.start("dvc", "repro", "--force", "--single-item", "resize")
        # The first kill comes while images.npy is written, the others at random times.
        moment = whole * rng.uniform(0.2, 1)
        while process.poll() is None and time.perf_counter() - start < moment:
            if not killed and list((folder / "data").glob(".images.*")):
                break
            time.sleep(0.001)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            killed += 1
        else:
            whole = min(whole, time.perf_counter() - start)
        # DVC writes this file in place; docs/troubleshooting.md says to remove it if it is damaged.
        with suppress(FileNotFoundError):
            try:
                json.loads((folder / ".dvc/tmp/rwlock").read_text())
            except ValueError:
                (folder / ".dvc/tmp/rwlock").unlink()
        start = time.perf_counter()
        project("dvc", "repro", "resize")
        whole = min(whole, time.perf_counter() - start)
        assert {name: file_digest(folder / name) for name in outs} == before
    assert changed_stages(project) == set()


def test_experiments_run_their_snapshot_and_keep_their_artifacts(
    project: Project, folder: Path, experiments: dict[str, str]
) -> None:
    assert "Running stage 'train'" in experiments["slow-lr"]
    assert "Running stage 'resize'" not in experiments["slow-lr"]
    shown = pd.read_csv(io.StringIO(project("dvc", "exp", "show", "--csv")))
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    for name in experiments:
        run = runs(folder)[name]
        assert run.info.status == "FINISHED"
        names = {file.path for file in client.list_artifacts(run.info.run_id, "evaluate")}
        assert "evaluate/report.html" in names
        row = shown[shown["Experiment"] == name].iloc[0]
        assert row["loss"] == pytest.approx(run.data.metrics["test_loss"])
    assert float(runs(folder)["slow-lr"].data.params["lr"]) == 1e-5


def test_table_of_experiments_has_the_changed_param_and_the_scores(
    project: Project, experiments: dict[str, str]
) -> None:
    """The command in the README; the experiments also change the two params dropped here."""
    options = ("--only-changed", "--drop", ".*/|evaluate|epochs")
    lines = project("dvc", "exp", "show", *options).splitlines()
    assert {"val_loss", "loss", "lr"} <= set(lines[1].split())
    assert "content_key" not in lines[1]
    assert max(map(len, lines)) <= 120


def test_output_of_an_experiment_states_how_to_discard_it(
    results: Project, experiments: dict[str, str], tmp_path: Path
) -> None:
    assert "To discard it:  dvc exp remove slow-lr" in experiments["slow-lr"]
    project = results.clone(tmp_path / "clone", cache=True)
    answers = project.folder / "data/corrections.csv"
    params = (project.folder / "params.yaml").read_text()
    printed = project("dvc", "exp", "run", "-n", "mine", "-S", "weight_decay=0.5")
    answers.write_text(answers.read_text() + "an answer that is not committed\n")
    (command,) = re.findall("(?m)^To discard it:  (.*)$", printed)
    for part in command.split(" && "):
        project(*part.split())
    assert answers.read_text().endswith("an answer that is not committed\n")
    assert project("git", "status", "--porcelain").split() == ["M", "data/corrections.csv"]
    assert (project.folder / "params.yaml").read_text() == params
    answers.write_text(answers.read_text().replace("an answer that is not committed\n", ""))
    assert changed_stages(project) == set()

    # The other command keeps the experiment: it is registered and committed.
    (command,) = re.findall("(?m)^To keep it:     (.*)$", printed)
    project("dvc", "exp", "apply", "mine")
    for part in command.split(" && "):
        project(*part.split())
    assert not project("git", "status", "--porcelain")
    assert "version 1, champion" in project("phototag", "summary")


def test_sync_adds_the_run_of_a_cached_experiment(project: Project, folder: Path) -> None:
    project("dvc", "exp", "run", "--temp", "-n", "as-before")
    assert "as-before" not in runs(folder)
    assert "MLflow runs created: 1 (as-before)" in project("phototag", "sync")
    run = runs(folder)["as-before"]
    assert "test_f1_micro" in run.data.metrics
    listed = project("dvc", "exp", "list", "--sha-only").split()
    assert run.data.tags["phototag.revision"] in listed
    assert project("phototag", "sync") == "MLflow runs created: 0\n"


def test_sync_fills_the_empty_store_of_a_clone(
    project: Project, folder: Path, tmp_path: Path
) -> None:
    """A new clone has results in git, but no store and no DVC cache."""
    clone = project.clone(tmp_path / "clone")
    commit = project("git", "log", "-1", "--format=%H", "--", "reports/train/training.json").strip()
    assert f"MLflow runs created: 1 ({commit[:7]})" in clone("phototag", "sync", "--history")
    (run,) = runs(clone.folder).values()
    scores = json.loads((folder / "reports/evaluate/metrics.json").read_text())
    assert run.data.metrics["test_loss"] == scores["loss"]
    assert run.data.tags["phototag.revision"] == commit
    history = pd.read_csv(folder / "reports/train/history.csv")
    assert run.data.metrics["best_val_loss"] == history["val_loss"].min()

    # With DVC's cache, the reports are logged too.
    (clone.folder / "mlflow.db").unlink()
    clone("dvc", "cache", "dir", "--local", str(folder / ".dvc/cache"))
    clone("phototag", "sync", "--history")
    assert list((clone.folder / "mlartifacts").rglob("evaluate/report.html"))
