"""Registered versions and the champion gate, with real MLflow models."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.cli import gc
from mlflow.tracking import MlflowClient
from typer.testing import CliRunner

from phototag.base.errors import InputError
from phototag.cli import typer_app
from phototag.dataset.dataset import Dataset, fingerprint, join_datasets, take_photos
from phototag.network.weights import read_metadata
from phototag.registry import versions
from phototag.registry.challenges import challenge_champion
from phototag.registry.comparison import Contestant, judge
from phototag.registry.cross_validated import CrossValidated
from phototag.registry.photos import list_ids
from phototag.tracking.runs import Training, create_run
from phototag.tracking.store import Store
from tests.models import make_model

pytestmark = pytest.mark.slow


def link_as_dvc(file: Path, cache: Path) -> Path:
    """Replace a file by a link, as DVC does with `cache.type symlink`."""
    kept = cache / file.parent.name / file.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    file.rename(kept)
    file.symlink_to(kept)
    return file


class Registered:
    """Registers models that know some labels, and compares them with the champion."""

    def __init__(self, store: Store, folder: Path, datasets: dict[str, Dataset]) -> None:
        self.store, self.folder = store, folder
        # Train has more photos than test, so it is used for the comparisons.
        self.datasets = datasets | {"train": datasets["test"], "test": datasets["train"]}
        self.run_id = create_run(store, Training("key"))

    def __call__(self, known: int, size: int = 16) -> dict[str, Any]:
        made = make_model(self.folder / f"{known}-{size}", known, size)
        files = (
            link_as_dvc(made[0], self.folder / "cache"),
            link_as_dvc(made[1], self.folder / "cache"),
        )
        ids, tags = list_ids(self.datasets), {"model_digest": f"{known}-{size}"}
        model = Contestant(files)
        version = versions.register_model(self.store, self.run_id, model, ids, tags, "")
        return challenge_champion(self.store, version, model, self.datasets, resamples=200, seed=0)[
            0
        ]

    def aliases(self) -> tuple[int, int]:
        found = (
            self.store.client.get_model_version_by_alias(self.store.name, name)
            for name in ("champion", "challenger")
        )
        champion, challenger = (int(version.version) for version in found)
        return champion, challenger


@pytest.fixture
def register(store: Store, tmp_path: Path, datasets: dict[str, Dataset]) -> Registered:
    return Registered(store, tmp_path, datasets)


def test_only_a_clear_winner_on_the_same_photos_becomes_champion(register: Registered) -> None:
    first = register(known=1)
    assert (first["version"], first["champion"]) == (1, True)
    assert first["previous_champion"] is None
    worse = register(known=0)
    assert (worse["version"], worse["champion"]) == (2, False)
    assert "does not clearly beat" in worse["reason"]
    assert register.aliases() == (1, 2)
    better = register(known=3)
    assert (better["version"], better["champion"], better["previous_champion"]) == (3, True, 1)
    assert register.aliases() == (3, 3)
    # The same model gets no new version.
    assert (register(known=0)["version"], register.aliases()) == (2, (3, 2))
    kinds = [(d["version"], d["champion"]) for d in versions.read_history(register.store)]
    assert kinds == [(1, True), (2, False), (3, True), (2, False)]


def test_difference_within_the_interval_does_not_win() -> None:
    values = {"challenger": 0.52, "champion": 0.5, "difference": 0.02, "low": -0.01, "high": 0.05}
    values["photos"] = 9
    wins, reason = judge(pd.DataFrame([{"metric": "f1_micro", **values}]))
    assert not wins
    assert "difference +0.0200, 97.5% interval -0.0100 to +0.0500" in reason
    wins, _ = judge(pd.DataFrame([{"metric": "f1_micro", **values, "low": 0.001}]))
    assert wins


def test_version_with_missing_tags_is_registered_again(
    register: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(known=1)
    written, keys = MlflowClient.set_model_version_tag, []

    def die(client: MlflowClient, name: str, version: str, key: str, value: str) -> None:
        keys.append(key)
        if len(keys) == 2:
            raise KeyboardInterrupt
        written(client, name, version, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_model_version_tag", die)
        with pytest.raises(KeyboardInterrupt):
            register(known=3)
    assert register(known=3)["champion"]
    assert register.aliases() == (3, 3)


def test_photos_are_shrunk_for_a_champion_but_not_enlarged(register: Registered) -> None:
    register(known=1, size=32)
    decision = register(known=3)
    assert not decision["champion"]
    assert "32 pixels a side" in decision["reason"]
    assert "phototag promote 2" in decision["notes"][-1]
    versions.promote(register.store, "2", "test")
    assert "does not clearly beat" in register(known=3, size=8)["reason"]


@pytest.mark.parametrize("lost", ["models", "model.safetensors", "gc"])
def test_champion_without_files_loses_and_is_registered_again(
    register: Registered, tmp_path: Path, lost: str
) -> None:
    register(known=3)
    if lost == "gc":
        uri, client = register.store.uri, register.store.client
        source = client.get_model_version(register.store.name, "1").source
        client.delete_logged_model(source.rpartition("/")[2])
        options = ["--backend-store-uri", uri, "--older-than", "0d"]
        gc.main(options, standalone_mode=False)
    for path in list((tmp_path / "mlartifacts").rglob(lost)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    decision = register(known=1)
    assert (decision["version"], decision["champion"]) == (2, True)
    assert decision["reason"] == "the files of champion version 1 were deleted"
    with pytest.raises(InputError, match=r"version 1 .* or its files were deleted"):
        versions.roll_back(register.store, "")
    again = register(known=3)
    assert (again["version"], again["champion"]) == (3, True)
    assert mlflow.pyfunc.load_model(f"models:/{register.store.name}@champion")


def test_promote_and_roll_back(register: Registered) -> None:
    for known in (1, 2, 3):
        register(known)
    store = register.store
    assert register.aliases() == (3, 3)
    assert versions.roll_back(store, "bad on dogs")["version"] == 2
    assert versions.roll_back(store, "that one too")["version"] == 1
    with pytest.raises(InputError, match="version 1 is the first champion"):
        versions.roll_back(store, "")
    assert versions.promote(store, "3", "good after all")["previous_champion"] == 1
    assert register.aliases() == (3, 3)
    assert versions.roll_back(store, "")["version"] == 1
    with pytest.raises(InputError, match=r"version 9 of the model test_.* does not exist"):
        versions.promote(store, "9", "")
    history = versions.read_history(store)
    assert [d["kind"] for d in history] == [
        *["challenge"] * 3,
        *["rollback"] * 2,
        "promote",
        "rollback",
    ]
    assert history[3]["reason"] == "bad on dogs"


def test_history_promote_and_rollback_commands(register: Registered) -> None:
    for known in (1, 2):
        register(known)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(typer_app, arguments)
        assert result.exit_code == 0, result.exception
        return result.stdout

    assert "version 1 is the champion (previous champion: 2)" in run(
        "rollback", "--reason", "bad\non dogs"
    )
    assert "version 2 is the champion (previous champion: 1)" in run("promote", "2")
    lines = run("history").splitlines()
    assert lines.pop().startswith("the champion is version 2, served as models:/")
    assert [line.split()[3] for line in lines] == ["1", "2", "1", "2"]
    assert "there was no champion" in lines[0]
    assert "beats" in lines[1]
    assert lines[2].endswith(r"rollback   champion  bad\non dogs")
    assert isinstance(CliRunner().invoke(typer_app, ["promote", "9"]).exception, InputError)


def test_version_has_tags_description_photos_and_signature(
    store: Store, tmp_path: Path, datasets: dict[str, Dataset]
) -> None:
    files = make_model(tmp_path / "model", known=3)
    metadata = read_metadata(files[0])
    datasets["test"] = take_photos(datasets["test"], np.arange(0))
    scores = {"final_val_f1_micro": 0.5}
    tags = versions.describe_model(metadata, scores, {"red": 0.123456}, "digest", "data", datasets)
    table = pd.DataFrame(
        [("model", "f1_micro", 0.5, 0.4, 0.6), ("label frequencies", "loss", 1, 1, 1)],
        columns=["predictor", "metric", "value", "low", "high"],
    )
    text = versions.write_description(table, metadata, datasets["val"], "val")
    run_id = create_run(store, Training("key"))
    stored = CrossValidated(["a"], ["red"], np.ones((1, 1), np.float32), np.ones((1, 1), bool))
    model = Contestant(files, stored)
    number = versions.register_model(store, run_id, model, list_ids(datasets), tags, text)
    version = store.client.get_model_version(store.name, number)
    assert version.tags["labels"] == "blue, green, red"
    assert version.tags["final_val_f1_micro"] == "0.5"
    assert version.tags["val_fingerprint"] == fingerprint(datasets["val"])
    assert "test_fingerprint" not in version.tags
    nested = versions.describe_model(
        metadata, {"cross_validation_loss": 1}, {}, "digest", "data", datasets
    )
    both = join_datasets([datasets["train"], datasets["val"]])
    assert nested["cross_validation_fingerprint"] == fingerprint(both)
    counts = [version.tags[f"{split}_photos"] for split in ("train", "val", "test")]
    assert counts == ["24", "8", "0"]
    assert "| metric on val |" in version.description
    support = dict(zip(metadata.labels, (datasets["val"].targets > 0).sum(axis=0), strict=True))
    few = ", ".join(label for label, positives in support.items() if positives < 5)
    assert f"Labels with too few positives to judge: {few}." in version.description
    assert json.loads(version.tags["thresholds"]) == {"red": 0.123456}
    assert "| f1_micro | 0.5000 | 0.4000 to 0.6000 |" in version.description
    assert "loss | 1" not in version.description
    info = mlflow.models.get_model_info(f"models:/{store.name}/{number}")
    assert info.signature.inputs.input_names() == ["image"]
    assert info.saved_input_example_info
    # The list of photos does not depend on the run.
    store.client.delete_run(run_id)
    gc.main(["--backend-store-uri", store.uri, "--older-than", "0d"], standalone_mode=False)
    (tmp_path / "fetched").mkdir()
    fetched, photos = versions.fetch_files(store, number, str(tmp_path / "fetched"))
    assert fetched.files[0].read_bytes() == files[0].read_bytes()
    assert fetched.cross_validated == stored
    expected = sorted(datasets["train"].sha256 + datasets["val"].sha256)
    assert photos.read_text().split() == [digest[:16] for digest in expected]
