"""Stages, killed again and again, end as if nothing had happened."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mlflow.tracking import MlflowClient

from phototag.base.files import file_digest
from phototag.experiments.recipes import read_recipes, recipe_params, update_params
from tests.conftest import NUM_PHOTOS, SHIPPED_PARAMS, SIZE
from tests.forks import fork_stage
from tests.projects import ROOT

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL)
EPOCHS = 24
ROWS, WIDTH, BATCH = 2400, 1280, 32  # photos whose features take a second; of EfficientNet-Lite0
HEADER = 128  # bytes of features.npy before the first row
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "solved": ("pretrained", {"epochs": EPOCHS}),
    "stepped": ("pretrained", {"optimizer": "adamw", "lr": 0.001, "epochs": EPOCHS}),
    "finetuned": ("finetuned", {"epochs": 4}),
}
pytestmark = pytest.mark.slow


class Stage:
    """A stage of a project, to be killed.

    Args:
        name: Its name.
        project: The folder.
        outs: What it writes.
        states: Pattern of the files from which it goes on.
    """

    def __init__(self, name: str, project: Path, outs: tuple[str, ...], states: str) -> None:
        self.name, self.project, self.states = name, project, states
        self.outs = [project / out for out in outs]
        # Seconds until it first writes its state, and from then on; the shortest of whole runs.
        self.lead = self.rest = np.inf

    def find_states(self) -> dict[Path, tuple[int, int]]:
        """Return size and time of what it would go on from: more than a header."""
        found = {}
        for path in self.project.glob(self.states):
            with suppress(FileNotFoundError):  # by now it has its other name
                stat = path.stat()
                if stat.st_size > HEADER:
                    found[path] = stat.st_size, stat.st_mtime_ns
        return found

    def run(self, experiment: str, kill: int | None = None) -> int:
        """Run it to its end, or send it a signal, and return its exit code.

        Args:
            experiment: Name of DVC's.
            kill: Number of the signal's; every fourth comes as the stage starts, the others at any
                moment after it has written something of its state.
        """
        before, began = self.find_states(), time.perf_counter()
        process = fork_stage(self.name, self.project, {"DVC_EXP_NAME": experiment})
        early = kill is not None and kill % 4 == 3
        while not early and process.is_alive() and self.find_states() == before:
            process.join(0.005)
        written = time.perf_counter()
        if kill is not None:
            process.join(np.random.default_rng().uniform(0, self.lead if early else self.rest))
            assert process.pid is not None
            with suppress(ProcessLookupError):  # it has ended
                os.kill(process.pid, SIGNALS[kill % len(SIGNALS)])
        process.join(120)
        assert process.exitcode is not None, "it does not end"
        if process.exitcode == 0 and not before and not early:
            # Measured while the machine stood still, they would put every kill behind the end.
            self.lead = min(self.lead, written - began)
            self.rest = min(self.rest, time.perf_counter() - written)
        return process.exitcode

    def survive(self, kills: int) -> Iterator[tuple[str, int]]:
        """Kill it so often; its outputs are those of a run that was not killed, or missing.

        Yields:
            Of each run that came to its end, in however many starts: DVC's experiment, and the
            bytes of the state from which the last start went on.
        """
        assert self.run("whole") == 0
        expected = {out: file_digest(out) for out in self.outs}
        yield "whole", 0
        killed, rounds = 0, 0
        while killed < kills:
            rounds += 1
            for out in self.outs:  # as DVC does
                out.unlink()
            ended = False
            while not ended:
                size = sum(size for size, _ in self.find_states().values())
                code = self.run(f"round-{rounds}", killed if killed < kills else None)
                killed += code != 0
                for out in filter(Path.exists, self.outs):
                    assert file_digest(out) == expected[out], out
                # A kill after the last output, while the process ends, is no interruption.
                ended = code == 0 or (self.outs[0].exists() and not self.find_states())
            assert all(out.exists() for out in self.outs)
            if code == 0:
                yield f"round-{rounds}", size
        assert not self.find_states()


def make_train(project: Path) -> Stage:
    outs = ("models/model.safetensors", "models/out_of_fold.npy", "reports/train/history.csv")
    return Stage("train", project, outs, ".phototag/checkpoints/*.pt")


def make_embed(project: Path) -> Stage:
    """It computes more photos' features than the project has, which take longer."""
    photos = np.load(project / "data/images.npy")
    np.save(project / "data/images.npy", np.resize(photos, (ROWS, *photos.shape[1:])))
    return Stage("embed", project, ("data/features.npy",), ".phototag/features/*.part")


def write_params(project: Path, recipe: str, changes: dict[str, Any]) -> None:
    pytest.importorskip("timm")
    settings = recipe_params(read_recipes(ROOT / "recipes.yaml"), recipe)
    short = {"resize.size": SIZE, "model.dropout": 0.0, "train.early_stopping": 0}
    update_params(project / "params.yaml", settings | short | changes)


def shorten(project: Path, epochs: int) -> None:
    values = yaml.safe_load((project / "params.yaml").read_text())
    (project / "params.yaml").write_text(yaml.safe_dump(values | {"epochs": epochs}))


def logged(project: Path, experiment: str = "") -> list[tuple[str, list[int]]]:
    """Return the status of each of the experiment's runs, and the epochs logged in it."""
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    runs = client.search_runs(["1"], f"tags.`phototag.dvc_experiment` = '{experiment}'")
    return [
        (run.info.status, [m.step for m in client.get_metric_history(run.info.run_id, "val_loss")])
        for run in runs
    ]


@pytest.fixture(scope="module")
def features(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the embed stage gives, of the photos in `project`."""
    folder = tmp_path_factory.mktemp("embedded")
    shutil.copytree(packed, folder / "data")
    shutil.copy(SHIPPED_PARAMS, folder)
    write_params(folder, "pretrained", {})
    embed = fork_stage("embed", folder, {})
    embed.join()
    assert embed.exitcode == 0
    return folder / "data/features.npy"


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_kills_leave_the_same_bytes_and_one_run(
    project: Path, empty_database: Path, kills: int
) -> None:
    shutil.copy(empty_database, project)
    shorten(project, EPOCHS)
    for experiment, _ in make_train(project).survive(kills):
        assert logged(project, experiment) == [("FINISHED", list(range(1, EPOCHS + 1)))]


@pytest.mark.soak
@pytest.mark.parametrize("case", RECIPES)
def test_so_they_do_over_a_backbone(
    project: Path, empty_database: Path, features: Path, case: str
) -> None:
    shutil.copy(empty_database, project)
    recipe, changes = RECIPES[case]
    write_params(project, recipe, changes)
    shutil.copy(features, project / "data")
    for experiment, _ in make_train(project).survive(10):
        epochs = list(range(1, changes["epochs"] + 1))
        assert logged(project, experiment) == [("FINISHED", epochs)]


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.soak)])
def test_features_go_on_behind_what_was_computed(project: Path, kills: int) -> None:
    write_params(project, "pretrained", {})
    stage = make_embed(project)
    for _, size in stage.survive(kills):
        done = max(size - HEADER, 0) // (BATCH * WIDTH * 4) * BATCH
        (pace,) = project.glob(".phototag/features/*.json")
        assert json.loads(pace.read_text())["photos"] == ROWS - done


def test_features_are_computed_by_one_process_at_a_time(project: Path) -> None:
    """A killed `dvc repro` leaves its stage at work, and the next one starts another."""
    write_params(project, "pretrained", {})
    stage = make_embed(project)
    left = fork_stage("embed", project, {})
    while not stage.find_states():
        assert left.is_alive()
        left.join(0.005)
    assert stage.run("") == left.exitcode == 0
    found = np.load(stage.outs[0])
    assert stage.outs[0].stat().st_size == HEADER + found.nbytes
    # The photos are the same few over and over.
    np.testing.assert_allclose(found, np.resize(found[:NUM_PHOTOS], found.shape), atol=1e-4)


def test_other_params_do_not_go_on_from_a_foreign_state(
    project: Path, empty_database: Path
) -> None:
    shutil.copy(empty_database, project)
    stage = make_train(project)
    process = fork_stage("train", project, {})
    while not stage.find_states():
        assert process.is_alive()
        process.join(0.005)
    process.kill()
    process.join()
    shorten(project, 2)
    process = fork_stage("train", project, {})
    process.join()
    assert process.exitcode == 0
    history = (project / "reports/train/history.csv").read_text().splitlines()
    assert len(history) == 3
    assert sorted(status for status, _ in logged(project)) == ["FINISHED", "KILLED"]
    assert len(stage.find_states()) == 1
