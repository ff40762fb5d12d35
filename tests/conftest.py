"""Fixtures: a tiny packed dataset that can be learnt, an MLflow store, a trained project.

In the tiny dataset each label is a bright colour channel.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from filelock import FileLock
from playwright.sync_api import Browser, sync_playwright

from phototag.base.files import write_json
from phototag.dataset.dataset import Dataset, read_datasets
from phototag.dataset.targets import UNKNOWN
from phototag.decoding.photos import Photo
from phototag.network.params import ModelParams
from phototag.schema.params import Params, read_all_params
from phototag.verification.ledger import build_manifest, write_manifest
from phototag.verification.packing import write_images
from tests.projects import Project, make_project
from tests.servers import free_port

if TYPE_CHECKING:
    from phototag.tracking.store import Store

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers and their child processes share the cores, so each uses one thread.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)

Once = Callable[[str, Callable[[], str]], str]
SIZE = 16
NUM_PHOTOS = 40
REJECTED = 7  # index of a source file that is rejected and has no row in images.npy
SHIPPED_PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"


@pytest.fixture(autouse=True)
def keep_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restore sys.path: MLflow prepends the code of a loaded model."""
    monkeypatch.setattr(sys, "path", sys.path.copy())


@pytest.fixture
def params_values() -> dict[str, Any]:
    """The shipped params.yaml as plain values, fresh for each test."""
    values: dict[str, Any] = yaml.safe_load(SHIPPED_PARAMS.read_text(encoding="utf-8"))
    return values


@pytest.fixture
def shipped_params() -> Params:
    return read_all_params(SHIPPED_PARAMS)


@pytest.fixture
def tiny_spec() -> ModelParams:
    """A network for 16-pixel photos that trains an epoch in milliseconds."""
    return ModelParams.model_validate(
        {
            "init": "he",
            "conv": [{"out": 8, "kernel": 3, "pool": 2}, {"out": 8, "kernel": 3, "pool": 2}],
            "linear": [16],
        }
    )


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images.npy, manifest.csv and splits.csv: 40 photos and a rejected one."""
    folder = tmp_path_factory.mktemp("packed")
    rng = np.random.default_rng(0)
    targets = (rng.random((NUM_PHOTOS + 1, 3)) < 0.4).astype(np.uint8)
    names, photos = [], []
    for row, carried in enumerate(targets):
        names.append(f"images/im{row + 1}.jpg")
        noise = rng.integers(0, 100, (SIZE, SIZE, 3))
        pixels = (noise + 120 * carried).astype(np.uint8)
        sha256 = hashlib.sha256(pixels.tobytes()).hexdigest()
        if row == REJECTED:
            photos.append(Photo("rejected", "zero bytes", sha256=sha256))
        else:
            photos.append(Photo("kept", "", "JPEG", SIZE, SIZE, "RGB", sha256, pixels=pixels))
    decided = write_images(folder / "images.npy", photos, SIZE)
    columns = {name: targets[:, i] for i, name in enumerate(("blue", "green", "red"))}
    write_manifest(folder / "manifest.csv", build_manifest(names, decided, columns))
    kept = [name for row, name in enumerate(names) if row != REJECTED]
    # Splits are interleaved, so that the rows of a split are not a slice of the array.
    splits = [("train", "val", "train", "test", "train")[i % 5] for i in range(NUM_PHOTOS)]
    table = pd.DataFrame({"image": kept, "split": splits})
    table.to_csv(folder / "splits.csv", index=False)
    return folder


@pytest.fixture
def datasets(packed: Path) -> dict[str, Dataset]:
    """The splits of the tiny dataset: 24 photos in train, 8 in val and 8 in test."""
    return read_datasets(packed / "images.npy", packed / "manifest.csv", packed / "splits.csv")


@pytest.fixture
def partly(datasets: dict[str, Dataset]) -> dict[str, Dataset]:
    """The same splits with a third of the targets unknown."""
    rng = np.random.default_rng(0)
    return {
        split: replace(
            dataset,
            targets=np.where(rng.random(dataset.targets.shape) < 1 / 3, UNKNOWN, dataset.targets),
        )
        for split, dataset in datasets.items()
    }


@pytest.fixture
def project(tmp_path: Path, packed: Path, params_values: dict[str, Any]) -> Path:
    """A folder with the inputs of the train stage and params for 100 epochs."""
    shutil.copytree(packed, tmp_path / "data")
    stats = {"mean": [0.4] * 3, "std": [0.2] * 3}
    write_json(tmp_path / "data/stats.json", stats)
    values = params_values | {"epochs": 100, "batch_size": 8, "schedule": "cosine"}
    values["resize"]["size"] = SIZE
    values["model"] |= {"conv": [{"out": 8, "kernel": 3, "pool": 2}], "linear": [16]}
    values["model"] |= {"dropout": 0.2, "batch_norm": True}
    values["augment"] |= {"flip_horizontal": 0.5, "contrast": 0.2}
    values["train"] |= {"ema": 0.95}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> "Store":
    """The empty MLflow store of a project in `tmp_path`."""
    from phototag.tracking.store import connect

    shutil.copy(empty_database, tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    # connect() leaves the URI in the environment; monkeypatch removes it after the test.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("DVC_EXP_NAME", "")
    return connect()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Return a function that runs work once for all workers and returns its result to each."""
    base = shared_folder(tmp_path_factory)

    def do(name: str, work: Callable[[], str]) -> str:
        done = base / f"{name}.done"
        with FileLock(base / f"{name}.lock"):
            if not done.exists():
                done.write_text(work())
        return done.read_text()

    return do


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, once: Once) -> Project:
    """A committed project after its first `dvc repro`, with its MLflow store.

    All workers share it. Only `tests/e2e/test_pipeline.py` changes it, and restores it.
    """
    base = shared_folder(tmp_path_factory)

    def make() -> str:
        shutil.rmtree(base / "trained", ignore_errors=True)  # left by a worker that failed
        # Three labels only, because each label adds figures to draw.
        project = make_project(base / "trained", labels="[clouds, people, portrait]")
        project("dvc", "repro")
        project.commit("results")
        project.clone(base / "results", cache=True)
        return ""

    once("trained", make)
    return Project(base / "trained")


@pytest.fixture(scope="session")
def results(trained: Project) -> Project:
    """A clone of `trained` with DVC's cache and without a store, to read and to clone."""
    return Project(trained.folder.parent / "results")


@pytest.fixture(scope="session")
def experiments(trained: Project, once: Once) -> dict[str, str]:
    """Output of the experiments `slow-lr` (DVC's queue) and `pooled` (workspace) in `trained`.

    The code in the workspace is broken while the queue runs, so that the experiment must use its
    snapshot.
    """
    source = trained.folder / "src/phototag/evaluation/result.py"

    def queue() -> str:
        before = source.read_text()
        changes = ("-S", "lr=0.00001", "-S", "epochs=2")
        trained("dvc", "exp", "run", "--queue", "-n", "slow-lr", *changes)
        source.write_text("raise RuntimeError('the workspace, not the snapshot')\n")
        try:
            return trained("dvc", "exp", "run", "--run-all")
        finally:
            source.write_text(before)

    def run() -> str:
        output = trained("dvc", "exp", "run", "-n", "pooled", "-S", "evaluate.prior_strength=1")
        trained("git", "checkout", "-q", ".")
        trained("dvc", "checkout", "-q")
        return output

    return {"slow-lr": once("queued", queue), "pooled": once("here", run)}


@pytest.fixture
def port() -> int:
    """A free port."""
    return free_port()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_playwright() as driver:
        # Chromium has no sandbox for root, and tests in a container often run as root.
        started = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with the experiment and no runs; creating one takes seconds."""
    from phototag.tracking.store import connect

    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(folder))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        _ = connect().client
    return folder / "mlflow.db"
