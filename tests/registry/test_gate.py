"""The gate of the registry: what is counted, and what happens when others act meanwhile.

The versions hold no files: log_model takes seconds, and test_versions has the real ones.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from phototag.base.errors import InputError
from phototag.dataset.dataset import Dataset
from phototag.network.weights import Metadata
from phototag.registry import comparison, versions
from phototag.registry.decision import stand_aside
from phototag.tracking.store import Store, connect
from tests.models import make_model


class Gate:
    """A registry in which a model is its number of known labels."""

    def __init__(self, store: Store, folder: Path, judged: Dataset) -> None:
        self.store, self.folder, self.judged = store, folder, judged
        self.files: dict[str, tuple[Path, Path]] = {}

    def register(self, name: str, known: int, code: str = "", photos: str = "photos") -> str:
        """Make a version of a model; its name tells weights that know the same apart."""
        folder = self.folder / name
        files = make_model(folder, known)
        point = (folder / "thresholds.json").read_text()
        files[1].write_text(point.replace("0.5", f"0.5{sum(map(ord, name))}"))
        tags = {"model_digest": f"{name}{code}", "test_fingerprint": photos}
        self.latest = files
        version = versions.register_model(self.store, "", *files, tags, "")
        self.files[version] = files
        return version

    def challenge(self, name: str, known: int, code: str = "", photos: str = "photos") -> Any:
        version = self.register(name, known, code, photos)
        return versions.challenge_champion(
            self.store, version, *self.files[version], self.judged, resamples=100, seed=0
        )[0]

    def champion(self) -> int | None:
        found = versions.find_champion(self.store.client)
        return int(found.version) if found else None


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An MLflow store, which takes seconds to make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_ROOT", str(tmp_path_factory.mktemp("store")))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        yield connect()


@pytest.fixture
def gate(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, datasets: dict[str, Dataset]
) -> Iterator[Gate]:
    made = Gate(store, tmp_path, datasets["train"])
    client = made.store.client
    client.create_registered_model("phototag")

    def log_model(model: Path, thresholds: Path, name: str) -> SimpleNamespace:
        version = client.create_model_version(name, source=str(model.parent))
        return SimpleNamespace(registered_model_version=version.version)

    class NoRun:
        def __init__(self, **_: str) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(versions, "log_model", log_model)
    monkeypatch.setattr(mlflow, "start_run", NoRun)
    monkeypatch.setattr(versions, "_fetch", lambda version, _: made.files[str(version.version)])
    yield made
    client.delete_registered_model("phototag")


def test_each_model_counts_once_for_a_champion_and_its_photos(gate: Gate) -> None:
    assert gate.challenge("first", 2)["reason"] == "there was no champion"
    numbers = [gate.challenge(name, 1)["challenge"] for name in ("a", "b", "a", "c", "b")]
    assert numbers == [1, 2, 1, 3, 2]
    # Neither with other code ...
    assert gate.challenge("a", 1, code="fixed")["challenge"] == 1
    # ... nor when a version was deleted is a number given twice.
    gate.store.client.delete_model_version("phototag", "2")
    assert gate.challenge("d", 1)["challenge"] == 4
    assert gate.challenge("c", 1)["coverage"] == comparison.coverage(3)
    # Photos that are no longer the same do not compare, and do not count.
    assert "challenge" not in gate.challenge("e", 1, photos="others")
    assert gate.challenge("e2", 1)["challenge"] == 5
    assert gate.champion() == 1


def test_a_new_champion_is_challenged_from_the_start(gate: Gate) -> None:
    gate.challenge("first", 1)
    gate.challenge("a", 0)
    won = gate.challenge("better", 3)
    assert (won["champion"], won["challenge"], won["coverage"]) == (True, 2, "99.1667%")
    assert "(challenge 2 of this champion)" in won["reason"]
    assert gate.challenge("a", 0)["challenge"] == 1
    assert gate.challenge("c", 0)["challenge"] == 2


def test_newer_code_takes_the_place_of_its_own_weights_and_keeps_the_count(gate: Gate) -> None:
    gate.challenge("first", 2)
    gate.challenge("a", 1)
    decision = gate.challenge("first", 2, code="fixed", photos="photos")
    assert decision["champion"]
    assert "newer code" in decision["reason"]
    assert gate.champion() == decision["version"] == 3
    assert gate.challenge("b", 1)["challenge"] == 2


def test_what_beat_a_former_champion_is_judged_again(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's better model becomes champion while this one is compared."""
    gate.challenge("first", 1)
    rival = gate.register("rival", 3)
    compare = comparison.compare_models
    moved: list[bool] = []

    def compare_meanwhile(*given: Any) -> pd.DataFrame:
        if not moved:
            moved.append(True)
            gate.store.client.set_registered_model_alias("phototag", "champion", rival)
        return compare(*given)

    monkeypatch.setattr(versions, "compare_models", compare_meanwhile)
    decision = gate.challenge("mine", 2)
    assert (decision["champion"], decision["previous_champion"]) == (False, int(rival))
    assert gate.champion() == int(rival)
    void, last = versions.read_history(gate.store)[-2:]
    assert not void["champion"]
    assert f"meanwhile version {rival} became champion" in void["reason"]
    assert last["reason"] == decision["reason"]


@pytest.mark.parametrize("promote", [False, True])
def test_a_crash_before_the_alias_moves_loses_no_decision(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, promote: bool
) -> None:
    gate.challenge("first", 1)
    better = gate.register("better", 3)
    client = gate.store.client
    move = client.set_registered_model_alias

    def crash(name: str, alias: str, version: str) -> None:
        if alias == "champion":
            raise KeyboardInterrupt
        move(name, alias, version)

    with monkeypatch.context() as patch:
        patch.setattr(client, "set_registered_model_alias", crash)
        with pytest.raises(KeyboardInterrupt):
            versions.promote(gate.store, better, "") if promote else gate.challenge("better", 3)
    assert gate.champion() == 1
    (told,) = [d for d in versions.read_history(gate.store) if d["version"] == int(better)]
    assert told["champion"]
    # The next decision, about any model, first carries that one out.
    assert gate.challenge("other", 2)["previous_champion"] == int(better)
    assert gate.champion() == int(better)
    assert versions.roll_back(gate.store, "")["version"] == 1


def test_a_decision_that_waits_is_void_where_another_became_champion(gate: Gate) -> None:
    gate.challenge("first", 1)
    second, third = gate.register("second", 3), gate.register("third", 3)
    client = gate.store.client
    first = versions.find_champion(client)
    versions._record(
        client, versions._decision("challenge", second, first, True, "x"), pending=True
    )
    client.set_registered_model_alias("phototag", "champion", third)
    versions.promote(gate.store, "1", "by hand")
    assert gate.champion() == 1
    (void,) = [d for d in versions.read_history(gate.store) if d["version"] == int(second)]
    assert not void["champion"]


def test_deleted_versions_are_told_in_a_sentence(gate: Gate) -> None:
    gate.challenge("first", 1)
    gate.challenge("better", 3)
    gate.store.client.delete_model_version("phototag", "1")
    with pytest.raises(InputError, match="version 1, the champion before version 2, was deleted"):
        versions.roll_back(gate.store, "")
    with pytest.raises(InputError, match="no version 1"):
        versions.promote(gate.store, "1", "")
    gate.store.client.delete_model_version("phototag", "2")
    assert gate.champion() is None
    with pytest.raises(InputError, match="there is no champion"):
        versions.roll_back(gate.store, "")
    assert gate.challenge("next", 1)["champion"]


def test_an_alias_is_not_absent_where_the_store_cannot_be_asked(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.challenge("first", 3)

    def fail(*_: str) -> None:
        raise MlflowException("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(gate.store.client, "get_model_version_by_alias", fail)
        with pytest.raises(MlflowException, match="connection refused"):
            gate.challenge("worse", 0)
    assert gate.champion() == 1


def lose_files(gate: Gate) -> None:
    def fail(*_: object) -> None:
        raise MlflowException("no such file")

    versions._fetch = fail  # type: ignore[assignment]


def cut_weights(gate: Gate) -> None:
    gate.files["1"][0].write_bytes(b"cut")


@pytest.mark.parametrize("harm", [lose_files, cut_weights])
def test_a_champion_without_its_files_does_not_compare(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Gate], None]
) -> None:
    gate.challenge("first", 1)
    monkeypatch.setattr(versions, "_fetch", versions._fetch)  # restored afterwards
    harm(gate)
    decision = gate.challenge("better", 3)
    assert not decision["champion"]
    assert "does not compare: its files cannot be" in decision["reason"]
    assert "phototag promote 2" in decision["reason"]


def test_an_experiment_stands_aside() -> None:
    decision, table = stand_aside("my-try")
    assert decision["version"] is None
    assert not decision["champion"]
    assert "dvc exp apply my-try" in decision["reason"]
    assert table.empty


def test_a_description_shows_labels_as_they_are_and_no_endless_list() -> None:
    labels = ["<b>", "a|b", *map(str, range(100))]
    metadata = Metadata(
        labels, 16, [], [], {}, "key", epoch=1, val_loss=0.5, num_photos=9, source="my_<photos>"
    )
    scores = pd.DataFrame(columns=["predictor", "metric", "value", "low", "high"])
    text = versions.write_description(scores, metadata)
    assert "&#60;b&#62;, a&#124;b, 0, 1" in text
    assert "47 and 52 more." in text
    assert np.char.count(text, "<") == 0


def test_another_machine_may_carry_a_decision_out(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.challenge("first", 1)
    settle = versions._settle

    def settle_twice(client: Any) -> None:
        settle(client)
        settle(client)

    monkeypatch.setattr(versions, "_settle", settle_twice)
    assert gate.challenge("better", 3)["champion"]
    assert gate.champion() == 2
    assert [d["version"] for d in versions.read_history(gate.store)] == [1, 2]
