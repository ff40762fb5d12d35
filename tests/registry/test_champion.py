"""Decisions of the champion gate, with versions that have no files.

`test_versions` registers real models, which takes seconds each.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from typer.testing import CliRunner

from phototag.base.errors import InputError
from phototag.cli import typer_app
from phototag.dataset.dataset import Dataset
from phototag.network.weights import Metadata
from phototag.registry import comparison, versions
from phototag.registry.decision import write_decision
from phototag.tracking.store import Store, connect
from tests.models import make_model


class Registry:
    """Registry of models that know the first labels only; more known labels are better."""

    def __init__(self, store: Store, folder: Path, photos: Dataset) -> None:
        self.store, self.folder, self.photos = store, folder, photos
        self.files: dict[str, tuple[Path, Path]] = {}
        self.lost: set[str] = set()  # versions whose files were deleted

    def register(
        self,
        name: str,
        known: int,
        code: str = "",
        fingerprint: str = "photos",
        split: str = "test",
    ) -> str:
        """Register a model whose thresholds depend on its name, so that digests differ."""
        folder = self.folder / name
        files = make_model(folder, known)
        point = (folder / "thresholds.json").read_text()
        files[1].write_text(point.replace("0.5", f"0.5{sum(map(ord, name))}"))
        tags = {"model_digest": f"{name}{code}", f"{split}_fingerprint": fingerprint}
        self.latest = files
        version = versions.register_model(self.store, "", files, tags, "")
        self.files[version] = files
        return version

    def challenge(self, name: str, known: int, **more: str) -> Any:
        version = self.register(name, known, **more)
        return versions.challenge_champion(
            self.store, version, self.files[version], self.photos, resamples=100, seed=0
        )[0]

    def champion(self) -> int | None:
        return versions.find_champion(self.store.client)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An MLflow store, which takes seconds to create."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(tmp_path_factory.mktemp("store")))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        yield connect()


@pytest.fixture
def registry(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, datasets: dict[str, Dataset]
) -> Iterator[Registry]:
    made = Registry(store, tmp_path, datasets["train"])
    client = made.store.client
    client.create_registered_model("phototag")

    def log_model(model: Path, thresholds: Path, name: str) -> SimpleNamespace:
        version = client.create_model_version(name, source=str(model.parent))
        return SimpleNamespace(registered_model_version=version.version)

    def has_files(version: str) -> bool:
        existing = client.search_model_versions("name = 'phototag'")
        return version in {str(each.version) for each in existing} - made.lost

    class NoRun:
        def __init__(self, **_: str) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(versions, "log_model", log_model)
    monkeypatch.setattr(mlflow, "start_run", NoRun)
    monkeypatch.setattr(versions, "fetch_files", lambda version, _: made.files[version])
    monkeypatch.setattr(versions, "has_files", has_files)
    yield made
    client.delete_registered_model("phototag")


def test_each_model_counts_once_per_champion_and_photos(registry: Registry) -> None:
    assert registry.challenge("first", 2)["reason"] == "there was no champion"
    numbers = [registry.challenge(name, 1)["challenge"] for name in ("a", "b", "a", "c", "b")]
    assert numbers == [1, 2, 1, 3, 2]
    # Other code does not make another model.
    assert registry.challenge("a", 1, code="fixed")["challenge"] == 1
    # The number of a deleted version is not given again.
    registry.store.client.delete_model_version("phototag", "2")
    assert registry.challenge("d", 1)["challenge"] == 4
    assert registry.challenge("c", 1)["coverage"] == comparison.coverage(3)
    # Evaluations on other photos are not compared and not counted.
    assert "challenge" not in registry.challenge("e", 1, fingerprint="others")
    assert registry.challenge("e2", 1)["challenge"] == 5
    assert registry.champion() == 1


def test_challenges_of_a_new_champion_start_at_one(registry: Registry) -> None:
    registry.challenge("first", 1)
    registry.challenge("a", 0)
    won = registry.challenge("better", 3)
    assert (won["champion"], won["challenge"], won["coverage"]) == (True, 2, "99.1667%")
    assert "(challenge 2 of this champion)" in won["reason"]
    assert registry.challenge("a", 0)["challenge"] == 1
    assert registry.challenge("c", 0)["challenge"] == 2


def test_same_weights_with_other_code_replace_the_champion_and_keep_the_count(
    registry: Registry,
) -> None:
    registry.challenge("first", 2)
    registry.challenge("a", 1)
    decision = registry.challenge("first", 2, code="fixed")
    assert decision["champion"]
    assert "same weights and thresholds" in decision["reason"]
    assert registry.champion() == decision["version"] == 3
    assert registry.challenge("b", 1)["challenge"] == 2


def test_champion_that_changed_during_the_comparison_is_compared_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.challenge("first", 1)
    rival = registry.register("rival", 3)
    compare = comparison.compare_models
    moved: list[str] = []

    def compare_while_another_machine_promotes(*given: Any, **more: Any) -> pd.DataFrame:
        if not moved:
            moved.append(rival)
            registry.store.client.set_registered_model_alias("phototag", "champion", rival)
        return compare(*given, **more)

    monkeypatch.setattr(versions, "compare_models", compare_while_another_machine_promotes)
    decision = registry.challenge("mine", 2)
    assert (decision["champion"], decision["previous_champion"]) == (False, int(rival))
    assert registry.champion() == int(rival)


def test_deleted_versions_are_named_in_the_error(registry: Registry) -> None:
    registry.challenge("first", 1)
    registry.challenge("better", 3)
    registry.store.client.delete_model_version("phototag", "1")
    with pytest.raises(InputError, match="version 1 of the model phototag does not exist"):
        versions.roll_back(registry.store, "")
    with pytest.raises(InputError, match="version 1 of the model phototag does not exist"):
        versions.promote(registry.store, "1", "")
    registry.store.client.delete_model_version("phototag", "2")
    assert registry.champion() is None
    with pytest.raises(InputError, match="there is no champion"):
        versions.roll_back(registry.store, "")
    assert registry.challenge("next", 1)["champion"]


def test_history_reports_what_was_deleted_in_mlflow(registry: Registry) -> None:
    def show_history() -> list[str]:
        return CliRunner().invoke(typer_app, ["history"]).stdout.splitlines()

    assert show_history()[0].startswith("no version is registered: run `dvc repro`")
    client = registry.store.client
    for name, known in (("a", 1), ("b", 0), ("c", 3)):
        registry.challenge(name, known)
    assert registry.champion() == 3
    client.delete_model_version("phototag", "2")
    client.delete_registered_model_alias("phototag", "champion")
    assert show_history()[-2] == "deleted in MLflow: version 2"
    assert show_history()[-1].startswith("there is no champion: run")
    client.set_registered_model_alias("phototag", "champion", "1")
    assert show_history()[-1] == "the champion is version 1"
    versions.promote(registry.store, "1", "first\nsecond")
    assert show_history()[-3].endswith(r"version   1  promote    champion  first\nsecond")
    for version in ("3", "1"):
        client.delete_model_version("phototag", version)
    assert show_history()[0].startswith("no version is registered")


def test_failing_store_is_not_a_missing_champion(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.challenge("first", 3)

    def fail(*_: str) -> None:
        raise MlflowException("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(registry.store.client, "search_registered_models", fail)
        with pytest.raises(MlflowException, match="connection refused"):
            registry.challenge("worse", 0)
    assert registry.champion() == 1


def test_champion_with_a_damaged_file_stays(registry: Registry) -> None:
    registry.challenge("first", 1)
    registry.files["1"][0].write_bytes(b"cut")
    decision = registry.challenge("better", 3)
    assert not decision["champion"]
    assert "champion version 1 cannot be compared: " in decision["reason"]
    assert "phototag promote 2" in decision["reason"]


def test_model_selected_on_val_is_not_promoted_by_a_comparison_on_val(
    registry: Registry, tmp_path: Path
) -> None:
    registry.challenge("on-test", 1)
    # The fingerprints are equal, but one is of test and the other is of val.
    assert "on different photos" in registry.challenge("first", 1, split="val")["reason"]
    versions.promote(registry.store, "2", "")
    decision = registry.challenge("better", 3, split="val")
    assert not decision["champion"]
    assert "both models were selected on val" in decision["reason"]
    assert "set split.test above 0, or run `phototag promote 3`" in decision["reason"]
    assert registry.champion() == 2
    files = registry.files["3"], registry.files["2"]
    table = comparison.compare_models(registry.photos, *files, resamples=100, seed=0)
    assert comparison.judge(table)[0]
    for split in ("val", "test"):
        write_decision(tmp_path, decision | {"split": split}, table)
        page = (tmp_path / "report.html").read_text()
        assert ("at most 2.5%" in page) == (split == "test")
        assert ("are no evidence that a model is better" in page) == (split == "val")


def test_versions_without_files(registry: Registry) -> None:
    registry.challenge("first", 2)
    registry.challenge("a", 1)
    registry.lost.add("2")
    assert registry.challenge("a", 1)["version"] == 3
    with pytest.raises(InputError, match=r"version 2 .* or its files were deleted"):
        versions.promote(registry.store, "2", "")
    registry.lost.add("1")
    # The same model is registered again. A champion without files loses, even if it is better.
    assert registry.challenge("first", 2)["version"] == 4
    registry.lost.add("4")
    decision = registry.challenge("a", 1)
    assert (decision["version"], decision["champion"]) == (3, True)
    assert decision["reason"] == "the files of champion version 4 were deleted"
    with pytest.raises(InputError, match=r"version 4 .* or its files were deleted"):
        versions.roll_back(registry.store, "")


def test_description_escapes_the_origin() -> None:
    metadata = Metadata(
        ["cat"], 16, [], [], {}, "key", epoch=1, val_loss=0.5, num_photos=9, source="my_<photos>"
    )
    scores = pd.DataFrame(columns=["predictor", "metric", "value", "low", "high"])
    text = versions.write_description(scores, metadata)
    assert "1 labels" in text
    assert "<" not in text
