"""Stages that are killed and resumed end with the same bytes."""

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
import torch
import yaml
from mlflow.tracking import MlflowClient

from phototag.base.files import file_digest
from phototag.experiments.recipes import update_params
from phototag.tracking.recipes import read_recipes, recipe_params
from tests.conftest import SIZE
from tests.forks import fork_stage
from tests.projects import ROOT

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL)
EPOCHS = 24
ROWS = 2400  # photos whose features take a second
HEADER = 128  # bytes of features.npy before the first row
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "linear probe": ("pretrained", {"epochs": EPOCHS}),
    "nested cross-validation": ("pretrained", {"epochs": EPOCHS, "split.test": 0}),
    "head trained with AdamW": (
        "pretrained",
        {"optimizer": "adamw", "lr": 0.001, "epochs": EPOCHS},
    ),
    "finetuned": ("finetuned", {"epochs": 4}),
    "transformer": (
        "hub",
        {
            "epochs": EPOCHS,
            "model.name": "timm/vit_tiny_patch16_dinov3_qkvb",
            "model.weights": "w.pt",
            "model.global_pool": "mean-max",
        },
    ),
}
pytestmark = pytest.mark.slow


class Stage:
    """A stage of a project that is killed and resumed.

    Args:
        name: Name of the stage.
        project: Folder of the project.
        outs: Files that the stage writes.
        states: Pattern of the files from which the stage resumes.
    """

    def __init__(self, name: str, project: Path, outs: tuple[str, ...], states: str) -> None:
        self.name, self.project, self.states = name, project, states
        self.outs = [project / out for out in outs]
        # Seconds until the first state is written, and from then to the end; shortest of all runs.
        self.lead = self.rest = np.inf

    def find_states(self) -> dict[Path, tuple[int, int]]:
        """Return size and modification time of the states that hold more than a header."""
        found = {}
        for path in self.project.glob(self.states):
            with suppress(FileNotFoundError):  # it was renamed meanwhile
                stat = path.stat()
                if stat.st_size > HEADER:
                    found[path] = stat.st_size, stat.st_mtime_ns
        return found

    def run(self, experiment: str, kill: int | None = None) -> int:
        """Run the stage to its end or until it is killed, and return its exit code.

        Args:
            experiment: Name of the DVC experiment.
            kill: Number of the kill. Every fourth kill comes while the stage starts, the others at
                a random moment after it wrote its state.
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
            with suppress(ProcessLookupError):
                os.kill(process.pid, SIGNALS[kill % len(SIGNALS)])
        process.join(120)
        assert process.exitcode is not None, "the stage does not end"
        if process.exitcode == 0 and not before and not early:
            # The shortest times: longer ones, of a busy machine, would kill after the end.
            self.lead = min(self.lead, written - began)
            self.rest = min(self.rest, time.perf_counter() - written)
        return process.exitcode

    def kill_and_resume(self, kills: int) -> Iterator[str]:
        """Kill the stage `kills` times, and compare its outputs with those of a complete run.

        Yields:
            Name of the DVC experiment of each run that ended, in one or several starts.
        """
        assert self.run("whole") == 0
        expected = {out: file_digest(out) for out in self.outs}
        yield "whole"
        killed, rounds = 0, 0
        while killed < kills:
            rounds += 1
            for out in self.outs:  # as DVC does
                out.unlink()
            for features in self.project.glob(".phototag/features/*.features"):
                features.unlink()  # otherwise, no features would be computed
            ended = False
            while not ended:
                code = self.run(f"round-{rounds}", killed if killed < kills else None)
                killed += code != 0
                for out in filter(Path.exists, self.outs):
                    assert file_digest(out) == expected[out], out
                # A kill after the last output does not interrupt the stage.
                ended = code == 0 or (self.outs[0].exists() and not self.find_states())
            assert all(out.exists() for out in self.outs)
            if code == 0:
                yield f"round-{rounds}"


def make_train(project: Path) -> Stage:
    outs = ("models/model.safetensors", "models/out_of_fold.npy", "reports/train/history.csv")
    return Stage("train", project, outs, ".phototag/checkpoints/*.pt")


def make_embed(project: Path) -> Stage:
    """Return the embed stage with more photos than the project has, so that it takes longer."""
    photos = np.load(project / "data/images.npy")
    photos = np.resize(photos, (ROWS, *photos.shape[1:]))
    photos[:, 0, 0, :2] = np.indices((256, 256)).reshape(2, -1).T[:ROWS]  # all are different
    np.save(project / "data/images.npy", photos)
    return Stage("embed", project, ("data/features.npy",), ".phototag/features/*.features")


def write_params(project: Path, recipe: str, changes: dict[str, Any]) -> None:
    timm = pytest.importorskip("timm")
    if changes.get("model.weights") == "w.pt":
        torch.manual_seed(0)
        name = changes["model.name"].removeprefix("timm/")
        torch.save(timm.create_model(name).state_dict(), project / "w.pt")
    settings = recipe_params(read_recipes(ROOT / "recipes.yaml"), recipe)
    short = {"resize.size": SIZE, "model.dropout": 0.0, "train.early_stopping": 0}
    update_params(project / "params.yaml", settings | short | changes)


def shorten(project: Path, epochs: int) -> None:
    values = yaml.safe_load((project / "params.yaml").read_text())
    (project / "params.yaml").write_text(yaml.safe_dump(values | {"epochs": epochs}))


def logged(project: Path, experiment: str = "") -> list[tuple[str, list[int]]]:
    """Return the status and the logged epochs of each run of an experiment."""
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    ids = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(ids, f"tags.`phototag.dvc_experiment` = '{experiment}'")
    return [
        (run.info.status, [m.step for m in client.get_metric_history(run.info.run_id, "val_loss")])
        for run in runs
    ]


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_training_resumes_to_the_same_bytes_in_one_run(
    project: Path, empty_database: Path, kills: int
) -> None:
    shutil.copy(empty_database, project)
    shorten(project, EPOCHS)
    for experiment in make_train(project).kill_and_resume(kills):
        assert logged(project, experiment) == [("FINISHED", list(range(1, EPOCHS + 1)))]


@pytest.mark.soak
@pytest.mark.parametrize("case", RECIPES)
def test_killed_training_with_backbone_resumes_to_the_same_bytes(
    project: Path, empty_database: Path, case: str
) -> None:
    shutil.copy(empty_database, project)
    recipe, changes = RECIPES[case]
    write_params(project, recipe, changes)
    if changes.get("split.test") == 0:
        splits = project / "data/splits.csv"
        splits.write_text(splits.read_text().replace("test", "train"))
    embed = fork_stage("embed", project, {})
    embed.join()
    assert embed.exitcode == 0
    stage = make_train(project)
    for experiment in stage.kill_and_resume(10):
        epochs = list(range(1, changes["epochs"] + 1))
        assert logged(project, experiment) == [("FINISHED", epochs)]
    assert not stage.find_states()


@pytest.mark.parametrize(
    ("case", "kills"),
    [
        ("linear probe", 3),
        pytest.param("linear probe", 10, marks=pytest.mark.soak),
        pytest.param("transformer", 10, marks=pytest.mark.soak),
    ],
)
def test_killed_embedding_resumes_to_the_same_bytes(project: Path, case: str, kills: int) -> None:
    write_params(project, *RECIPES[case])
    stage = make_embed(project)
    assert list(stage.kill_and_resume(kills))


def test_features_are_computed_by_one_process_at_a_time(project: Path) -> None:
    """A killed `dvc repro` may leave its stage running when the next one starts."""
    write_params(project, "pretrained", {})
    stage = make_embed(project)
    left = fork_stage("embed", project, {})
    while not stage.find_states():
        assert left.is_alive()
        left.join(0.005)
    assert stage.run("") == left.exitcode == 0
    found = np.load(stage.outs[0])
    assert stage.outs[0].stat().st_size == HEADER + found.nbytes
    shutil.rmtree(project / ".phototag/features")
    assert stage.run("") == 0
    np.testing.assert_array_equal(np.load(stage.outs[0]), found)


def test_training_with_other_params_starts_again(project: Path, empty_database: Path) -> None:
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
